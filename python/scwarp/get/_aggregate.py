from __future__ import annotations

import math
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import _core
from .._context import make_context
from .._matrix import is_sparse, pack
from .._slots import boolean_mask, get_matrix, require_anndata

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from anndata import AnnData

_OP = "get.aggregate"
_FUNCTIONS = ("sum", "mean", "var", "count_nonzero", "sq_sum", "median")


def aggregate(
    adata: AnnData,
    by: str | Collection[str],
    func: str | Iterable[str],
    *,
    acc: str | None = None,
    axis: str | int | None = None,
    mask: Any = None,
    dof: int = 1,
    layer: str | None = None,
    obsm: str | None = None,
    varm: str | None = None,
    return_sparse: bool = False,
    device: str | None = None,
) -> AnnData:
    """Statistics of every gene in every group of cells, as a new AnnData with one layer per statistic.

    Parameters
    ----------
    by
        Column(s) of ``obs`` (of ``var`` with ``axis="var"``); rows of the result are the combinations that occur.
    func
        One or more of ``"sum"``, ``"mean"``, ``"var"``, ``"count_nonzero"``, ``"sq_sum"``, ``"median"``.
    acc
        The matrix by one name instead of ``layer``/``obsm``/``varm``: ``"X"``, ``"layers.counts"``, ``"obsm.X_pca"``.
    axis
        ``"obs"``/0 (default) or ``"var"``/1 (default with ``varm``): what is grouped. With ``"var"`` the groups are the
        variables of the result.
    mask
        Boolean array or column name: cells that take part, in sums and in group sizes.
    dof
        Taken off the group size in the variance; groups not larger give NaN.
    return_sparse
        CSR layers where the matrix is sparse (undefined values become 0, with a warning).
    device
        ``"cpu"`` or ``"cuda"``; default where the data are, else ``settings.device``.

    Notes
    -----
    float64 (``count_nonzero``: int32), exact sums: the same bits for any number of threads and any order of the cells.
    Cells with a missing label belong to no group.
    """
    require_anndata(adata, _OP)
    functions = [func] if isinstance(func, str) else list(dict.fromkeys(func))
    unknown = [f for f in functions if f not in _FUNCTIONS]
    if unknown or not functions:
        raise ValueError(f"{_OP}: func must be among {_FUNCTIONS} (got {unknown or functions})")
    columns = [by] if isinstance(by, str) else list(by)
    if not columns:
        raise ValueError(f"{_OP}: by is empty")
    if not all(isinstance(c, str) for c in columns):
        raise TypeError(f"{_OP}: by must be column names (got {columns})")
    if acc is not None:
        if layer is not None or obsm is not None or varm is not None:
            raise TypeError(f"{_OP}: give acc or layer/obsm/varm, not both")
        layer, obsm, varm = _read_acc(acc)
    if sum(p is not None for p in (layer, obsm, varm)) > 1:
        raise ValueError(f"{_OP}: give only one of layer, obsm and varm")
    if axis not in (None, "obs", "var", 0, 1):
        raise ValueError(f"{_OP}: axis must be 'obs', 'var', 0 or 1 (got {axis!r})")
    by_var = axis in ("var", 1) if axis is not None else varm is not None
    if obsm is not None and by_var:
        raise ValueError(f"{_OP}: obsm can only be used when axis is 'obs'")
    if varm is not None and not by_var:
        raise ValueError(f"{_OP}: varm can only be used when axis is 'var'")

    import pandas as pd
    from anndata import AnnData

    frame = adata.var if by_var else adata.obs
    codes, labels = _combinations(frame, columns)
    selected = boolean_mask(mask, frame, len(frame), _OP, "mask")
    if selected is not None:
        codes = np.where(selected, codes, -1)

    if varm is not None:
        if varm not in adata.varm:
            raise KeyError(f"{_OP}: no varm {varm!r} (there are: {list(adata.varm)})")
        x = adata.varm[varm]
    else:
        x = get_matrix(adata, _OP, layer=layer, obsm=obsm)
    if obsm is not None or varm is not None:
        names = x.columns if isinstance(x, pd.DataFrame) else pd.RangeIndex(x.shape[1]).astype(str)
        other = pd.DataFrame(index=names)
        x = x.to_numpy() if isinstance(x, pd.DataFrame) else x
    else:
        other = adata.obs if by_var else adata.var
        x = x.T if by_var else x

    ctx = make_context(x, op=_OP, device=device)
    packed = pack(x, _OP, blocks=True)
    layers = _core.get.aggregate(ctx, packed.arg, codes.astype(np.int32, copy=False), len(labels), functions, int(dof))
    if return_sparse and is_sparse(packed.matrix):
        layers = {name: _sparse(name, values) for name, values in layers.items()}
    result = AnnData(layers=layers, obs=labels, var=other)
    return result.T if by_var else result


def _read_acc(acc: Any) -> tuple[str | None, str | None, str | None]:
    if not isinstance(acc, str):
        raise ImportError(
            f"{_OP}: references need an anndata with anndata.acc; give acc as text, as in 'layers.counts'"
        )
    where, _, name = acc.partition(".")
    if acc == "X":
        return None, None, None
    if where not in ("layers", "obsm", "varm") or not name:
        raise ValueError(f"{_OP}: acc must be 'X', 'layers.<name>', 'obsm.<name>' or 'varm.<name>' (got {acc!r})")
    return tuple(name if where == w else None for w in ("layers", "obsm", "varm"))  # type: ignore[return-value]


def _combinations(frame: Any, columns: list[str]) -> tuple[Any, Any]:
    """Group of every row (-1: a label is missing) and a frame with a row per group that occurs.

    Groups come in category order, the first column slowest.
    """
    import pandas as pd

    for c in columns:
        if c not in frame:
            raise KeyError(f"{_OP}: no column {c!r} (there are: {list(frame.columns)})")
    labels = [_used(pd.Categorical(frame[c])) for c in columns]
    if len(labels) == 1:  # every category occurs
        names = [str(c) for c in labels[0].categories]
        taken = pd.Categorical.from_codes(np.arange(len(names)), labels[0].categories)
        index = pd.Index(names, dtype=object)
        return labels[0].codes.astype(np.int32), pd.DataFrame({columns[0]: taken}, index=index)
    codes = np.zeros(len(frame), dtype=np.int64)
    missing = np.zeros(len(frame), dtype=bool)
    for label in labels:
        codes = codes * len(label.categories) + label.codes
        missing |= label.codes < 0
    codes[missing] = -1
    n_combinations = math.prod(len(label.categories) for label in labels)
    if n_combinations <= max(1 << 20, len(frame)):
        present = np.flatnonzero(np.bincount(codes[~missing] if missing.any() else codes, minlength=n_combinations))
        number = np.full(n_combinations + 1, -1, dtype=np.int64)  # the last entry is for code -1
        number[present] = np.arange(len(present))
        codes = number[codes]
    else:
        present, codes[~missing] = np.unique(codes[~missing], return_inverse=True)
    parts = np.unravel_index(present, [max(1, len(label.categories)) for label in labels])
    taken = [pd.Categorical.from_codes(p, label.categories) for p, label in zip(parts, labels, strict=True)]
    names = ["_".join(map(str, row)) for row in zip(*(list(t) for t in taken), strict=True)]
    return codes, pd.DataFrame(dict(zip(columns, taken, strict=True)), index=pd.Index(names, dtype=object))


def _used(label: Any) -> Any:
    """Without the categories that have no row: ``remove_unused_categories`` without its sort of all rows."""
    first = label.codes[:65536]  # most often enough to see every category
    for codes in (first, label.codes):
        used = np.bincount(codes.astype(np.int64) + 1, minlength=len(label.categories) + 1)[1:] > 0
        if used.all():
            return label
    return label.remove_unused_categories()


def _sparse(name: str, values: Any) -> Any:
    import scipy.sparse as sp

    if name == "count_nonzero":
        return sp.csr_matrix(values.astype(np.float32))
    undefined = ~np.isfinite(values)
    if undefined.any():
        warnings.warn(f"{_OP}: {name} is undefined for some groups: 0 in sparse output", RuntimeWarning, stacklevel=3)
        values = np.where(undefined, 0.0, values)
    return sp.csr_matrix(values)
