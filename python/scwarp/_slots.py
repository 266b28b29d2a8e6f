"""AnnData slots: which matrix an operation reads and where its result goes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ._settings import logger

if TYPE_CHECKING:
    from anndata import AnnData


def is_anndata(x: Any) -> bool:
    """Without importing anndata (a plain array or matrix has no ``obsm``)."""
    return hasattr(x, "obs_names") and hasattr(x, "obsm") and hasattr(x, "var")


def require_anndata(x: Any, op: str) -> None:
    if not is_anndata(x):
        raise TypeError(f"{op}: expected an AnnData (got {type(x).__name__})")


def refuse_backed(adata: Any, op: str) -> None:
    """Before anything is written: an AnnData in anndata's own backed mode cannot be subset in place."""
    if adata.isbacked:
        raise TypeError(
            f"{op}: adata is backed by its file (anndata's backed mode), which cannot be subset in place; "
            'load it (adata = adata.to_memory()), or read it with scwarp.read_h5ad(path, backed="r")'
        )


def make_actual(adata: AnnData, op: str) -> None:
    """A view that is about to be written to becomes a real object, as in scanpy."""
    if adata.is_view:
        logger.info("%s: the AnnData is a view: it becomes a copy before it is written to", op)
        adata._init_as_actual(adata.copy())


def get_matrix(adata: AnnData, op: str, *, layer: str | None = None, obsm: str | None = None) -> Any:
    if layer is not None and obsm is not None:
        raise ValueError(f"{op}: give layer or obsm, not both")
    if layer is not None:
        if layer not in adata.layers:
            raise KeyError(f"{op}: no layer {layer!r} (there are: {list(adata.layers)})")
        return adata.layers[layer]
    if obsm is not None:
        if obsm not in adata.obsm:
            raise KeyError(f"{op}: no obsm {obsm!r} (there are: {list(adata.obsm)})")
        return adata.obsm[obsm]
    return adata.X


def set_matrix(adata: AnnData, value: Any, *, layer: str | None = None, obsm: str | None = None) -> None:
    if layer is not None:
        if adata.layers.get(layer) is not value:
            adata.layers[layer] = value
    elif obsm is not None:
        if adata.obsm.get(obsm) is not value:
            adata.obsm[obsm] = value
    elif adata.X is not value:
        adata.X = value


def check_copy_inplace(op: str, copy: bool, inplace: bool) -> None:
    if copy and not inplace:
        raise ValueError(f"{op}: copy=True cannot be used with inplace=False")


def flags_of(column: Any, op: str, name: str) -> Any:
    """A column of flags as a bool array: booleans (pandas' own without a missing value), or the integers 0 and 1.

    Nothing else: ``astype(bool)`` would make True of missing values and of every text, ``"False"`` too.
    """
    if column.dtype == bool:
        return column.to_numpy()
    if column.dtype.kind == "b" or column.dtype.kind in "iu":  # with pandas' own types, which may have missing values
        if column.hasnans:
            raise ValueError(f"{op}: {name} has missing values; decide them: {name}.fillna(False)")
        if column.dtype.kind == "b" or column.isin((0, 1)).all():
            return column.to_numpy(dtype=bool)
        raise ValueError(f"{op}: {name} has other integers than 0 and 1, expected flags")
    raise ValueError(f"{op}: {name} is {column.dtype}, expected flags (bool, or the integers 0 and 1)")


def boolean_mask(mask: Any, frame: Any, n: int, op: str, name: str) -> Any:
    """A bool array of length n from a column name or an array; ``None`` stays ``None``."""
    if mask is None:
        return None
    if isinstance(mask, str):
        if mask not in frame.columns:
            raise ValueError(f"{op}: {name}={mask!r} is not a column (there are: {list(frame.columns)})")
        column = frame[mask]
        mask = flags_of(column, op, f"{name}={mask!r}") if column.dtype.kind == "b" else column.to_numpy()
    mask = np.asarray(mask)
    if mask.dtype != bool:
        raise ValueError(f"{op}: {name} must be boolean (got {mask.dtype})")
    if mask.shape != (n,):
        raise ValueError(f"{op}: {name} has shape {mask.shape}, expected ({n},)")
    return mask
