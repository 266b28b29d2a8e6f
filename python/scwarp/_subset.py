"""Subsetting an AnnData: X and layers by our kernels, the rest by hand, because anndata's own way costs seconds.

``adata[cells, genes].copy()`` looks for duplicate names and for unused categories several times over; at a million
cells that is 0.7 s, whatever the matrix.
"""

from __future__ import annotations

from copy import copy as shallow_copy
from copy import deepcopy
from typing import TYPE_CHECKING, Any

import numpy as np

from . import _core
from ._context import is_cupy, make_context
from ._matrix import is_canonical, is_sparse, sparse_format
from ._on_disk import is_on_disk

if TYPE_CHECKING:
    from anndata import AnnData

_STORES = ("obsm", "varm", "obsp", "varp", "layers")


def _as_flags(mask: Any) -> Any:
    return None if mask is None else np.ascontiguousarray(mask, dtype=bool).view(np.uint8)


def _array_module(x: Any) -> Any:
    if is_cupy(x):
        import cupy

        return cupy
    return np


def subset_matrix(x: Any, cells: Any, genes: Any, op: str) -> Any:
    """``x[cells][:, genes]`` for boolean masks on the host (``None``: all), in the container and dtype of ``x``.

    Runs where ``x`` is; CSC is subset as the CSR matrix of its transpose.
    """
    if is_on_disk(x):
        return x.subset(cells, genes)
    xp = _array_module(x)
    sparse = is_sparse(x)
    ours = x.dtype in (np.float32, np.float64) and (
        (sparse and sparse_format(x) in ("csr", "csc") and is_canonical(x, op))
        or (not sparse and type(x) is xp.ndarray and x.ndim == 2)
    )
    if not ours:
        rows = slice(None) if cells is None else np.flatnonzero(cells)
        cols = slice(None) if genes is None else np.flatnonzero(genes)
        return x[rows][:, cols]
    shape = (x.shape[0] if cells is None else int(np.sum(cells)), x.shape[1] if genes is None else int(np.sum(genes)))
    masks = (_as_flags(cells), _as_flags(genes))
    if not sparse:
        ctx = make_context(x, op=op, device=None if is_cupy(x) else "cpu")
        if not x.flags.c_contiguous and x.flags.f_contiguous:  # by its transpose: no copy, and the order is kept
            return _core.pp.subset(ctx, x.T, *masks[::-1]).T
        return _core.pp.subset(ctx, xp.ascontiguousarray(x), *masks)
    ctx = make_context(x, op=op, device=None if is_cupy(x) else "cpu")
    transposed = sparse_format(x) == "csc"
    arg = (
        xp.ascontiguousarray(x.indptr, dtype=np.int64),
        xp.ascontiguousarray(x.indices, dtype=np.int32),
        xp.ascontiguousarray(x.data),
        int(x.shape[0] if transposed else x.shape[1]),
    )
    indptr, indices, data = _core.pp.subset(ctx, arg, *(masks[::-1] if transposed else masks))
    if data.size <= np.iinfo(np.int32).max:
        indptr = indptr.astype(np.int32)
    else:
        indices = indices.astype(np.int64)
    out = type(x)((data, indices, indptr), shape=shape, copy=False)
    out.has_canonical_format = True
    return out


def _subset_value(value: Any, rows: Any, cols: Any, op: str) -> Any:
    """An entry of a store along the masks of its two axes (``cols`` only where it has a second axis of its own)."""
    if rows is None and cols is None:
        return value
    plain = hasattr(value, "dtype") and hasattr(value, "shape") and len(value.shape) == 2
    if plain and (type(value) is np.ndarray or is_cupy(value) or is_sparse(value) or is_on_disk(value)):
        return subset_matrix(value, rows, cols, op)
    if rows is not None:
        index = np.flatnonzero(rows)
        value = value.take(index) if hasattr(value, "iloc") else value[index]
    return value if cols is None else value[:, np.flatnonzero(cols)]


def _all_used(codes: Any, n: int) -> bool:
    """Whether every one of n categories has a cell; the first few cells decide nearly always."""
    first = 4096
    while True:
        used = np.bincount(codes[:first].astype(np.int64) + 1, minlength=n + 1)[1:]
        if (used > 0).all():
            return True
        if first >= len(codes):
            return False
        first *= 16


def _needs_trim(frame: Any) -> bool:
    import pandas as pd

    return any(
        isinstance(dtype, pd.CategoricalDtype)
        and not _all_used(np.asarray(frame[name].array.codes), len(dtype.categories))
        for name, dtype in frame.dtypes.items()
    )


def _trimmed(adata: AnnData, full: Any, frame: Any, uns: Any) -> Any:
    """Categories without a cell go, as anndata does, and their colours in ``uns`` with them."""
    import anndata

    if getattr(anndata.settings, "remove_unused_categories", True) and _needs_trim(frame):
        frame = frame.copy(deep=False)
        adata._remove_unused_categories(full, frame, uns)
    return frame


def _copied(value: Any) -> Any:
    """A deep copy of what is in ``uns``; the texts in arrays of objects are not copied one by one."""
    if type(value) is dict:
        return {key: _copied(v) for key, v in value.items()}
    return value.copy() if isinstance(value, np.ndarray) else deepcopy(value)


def _is_plain(adata: AnnData) -> bool:
    """Whether the object is laid out as we know it (anndata 0.11 to 0.13)."""
    import pandas as pd

    return (
        not adata.isbacked
        and not adata.is_view
        and adata.X is not None
        and hasattr(adata.X, "dtype")
        and all(isinstance(getattr(adata, f"_{name}", None), dict) for name in _STORES)
        and isinstance(getattr(adata, "_uns", None), dict)
        and all(isinstance(getattr(adata, f"_{name}", None), pd.DataFrame) for name in ("obs", "var"))
        and hasattr(adata, "_raw")
        and hasattr(adata, "_remove_unused_categories")
    )


def _take(frame: Any, mask: Any) -> Any:
    return frame if mask is None else frame.take(np.flatnonzero(mask))


def _assign(target: AnnData, source: AnnData, cells: Any, genes: Any, op: str, *, copy: bool) -> None:
    """Make ``target`` (``source``, or an empty object) the subset of ``source``: all parts first, then the slots."""
    x = subset_matrix(source.X, cells, genes, op)
    uns = _copied(dict(source._uns)) if copy else shallow_copy(source._uns)
    obs = _trimmed(source, source._obs, _take(source._obs, cells), uns)
    var = _trimmed(source, source._var, _take(source._var, genes), uns)
    masks = {"obsm": (cells, None), "varm": (genes, None), "obsp": (cells, cells), "varp": (genes, genes)}
    stores = {
        name: {key: _subset_value(value, *axes, op) for key, value in getattr(source, f"_{name}").items()}
        for name, axes in masks.items()
    }
    # From anndata 0.13 on, X is the layer without a name.
    layers = {key: subset_matrix(value, cells, genes, op) for key, value in source._layers.items() if key is not None}
    if copy:
        obs = obs.copy() if cells is None else obs
        var = var.copy() if genes is None else var
        for name, axes in masks.items():
            if axes[0] is None:
                stores[name] = {key: value.copy() for key, value in stores[name].items()}
    raw = source._raw
    if raw is not None and (cells is not None or copy):
        raw_x = raw.X.copy() if cells is None else subset_matrix(raw.X, cells, None, op)
        raw_parts = (raw_x, raw.var.copy() if copy else raw.var, raw.varm)
    target._obs, target._var, target._uns = obs, var, uns  # the frames define the shape
    for name, store in stores.items():
        setattr(target, f"_{name}", store)
    target._layers = {}
    target.X = x
    for key, value in layers.items():
        target.layers[key] = value
    if raw is None:
        target._raw = None
    elif cells is not None or copy:
        target._raw = type(raw)(target, *raw_parts)


def _normalised(mask: Any) -> Any:
    """``None`` for a mask that keeps everything."""
    return None if mask is None or np.all(mask) else np.asarray(mask)


def subset_inplace(adata: AnnData, op: str, *, cells: Any = None, genes: Any = None) -> None:
    """Keep the cells and genes of the masks, as ``adata._inplace_subset_obs/var`` does."""
    # A mask that keeps everything changes nothing.
    cells, genes = _normalised(cells), _normalised(genes)
    if cells is None and genes is None:
        return
    if _is_plain(adata):
        _assign(adata, adata, cells, genes, op, copy=False)
        return
    if cells is not None:
        adata._inplace_subset_obs(cells)
    if genes is not None:
        adata._inplace_subset_var(genes)


def subset_copy(adata: AnnData, op: str, *, cells: Any = None, genes: Any = None) -> AnnData:
    """``adata[cells, genes].copy()``."""
    from anndata import AnnData

    cells, genes = _normalised(cells), _normalised(genes)
    if cells is None and genes is None:
        return adata.copy()
    if _is_plain(adata):
        out = AnnData()
        _assign(out, adata, cells, genes, op, copy=True)
        return out
    return adata[slice(None) if cells is None else cells, slice(None) if genes is None else genes].copy()
