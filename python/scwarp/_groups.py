"""Groups of cells: the categorical column that an operation works by."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from anndata import AnnData


def is_text(column: Any) -> bool:
    """Whether all values of a column that are there are text, and it is not categorical."""
    import pandas as pd

    return not isinstance(column.dtype, pd.CategoricalDtype) and pd.api.types.infer_dtype(column) == "string"


def categorical_column(adata: AnnData, key: str, op: str) -> Any:
    """``obs[key]`` as a pandas Categorical.

    Of a column of strings or booleans it is a new one, with naturally sorted categories.
    """
    import pandas as pd

    if key not in adata.obs:
        raise KeyError(f"{op}: no column {key!r} in obs (there are: {list(adata.obs.columns)})")
    column = adata.obs[key]
    if not isinstance(column.dtype, pd.CategoricalDtype):
        if not (pd.api.types.is_string_dtype(column.dtype) or pd.api.types.is_bool_dtype(column.dtype)):
            raise ValueError(
                f"{op}: obs[{key!r}] is {column.dtype}, expected groups; "
                f"convert it: adata.obs[{key!r}].astype(str).astype('category')"
            )
        from natsort import natsorted

        values = column.astype(str).where(column.notna())
        return pd.Categorical(values, categories=natsorted(values.dropna().unique()))
    return column.array
