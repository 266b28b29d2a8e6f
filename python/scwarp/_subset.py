"""Subsetting an AnnData in place: X and layers by our kernels, the rest by anndata."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from . import _core
from ._context import is_cupy, make_context
from ._matrix import is_sparse, pack, sparse_format

if TYPE_CHECKING:
    from anndata import AnnData


def _as_flags(mask: Any) -> Any:
    return None if mask is None else np.ascontiguousarray(mask, dtype=bool).view(np.uint8)


def subset_matrix(x: Any, cells: Any, genes: Any, op: str) -> Any:
    """``x[cells][:, genes]`` for boolean masks (``None``: all), in the container and dtype of ``x``."""
    ours = (
        not is_cupy(x)
        and x.dtype in (np.float32, np.float64)
        and (not is_sparse(x) or (sparse_format(x) == "csr" and x.has_canonical_format))
        and (is_sparse(x) or (type(x) is np.ndarray and x.ndim == 2))
    )
    if not ours:
        rows = slice(None) if cells is None else np.flatnonzero(cells)
        cols = slice(None) if genes is None else np.flatnonzero(genes)
        return x[rows][:, cols]
    ctx = make_context(x, op=op, device="cpu")
    parts = _core.pp.subset(ctx, pack(x, op).arg, _as_flags(cells), _as_flags(genes))
    if not is_sparse(x):
        return parts
    indptr, indices, data = parts
    if indptr[-1] <= np.iinfo(np.int32).max:
        indptr = indptr.astype(np.int32)
    else:
        indices = indices.astype(np.int64)
    n = (x.shape[0] if cells is None else int(np.sum(cells)), x.shape[1] if genes is None else int(np.sum(genes)))
    out = type(x)((data, indices, indptr), shape=n, copy=False)
    out.has_canonical_format = True
    return out


def subset_inplace(adata: AnnData, op: str, *, cells: Any = None, genes: Any = None) -> None:
    """Keep the cells and genes of the masks, as ``adata._inplace_subset_obs/var`` does."""
    from anndata import AnnData

    # A mask that keeps everything changes nothing.
    cells = None if cells is None or np.all(cells) else cells
    genes = None if genes is None or np.all(genes) else genes
    if cells is None and genes is None:
        return
    if adata.isbacked or adata.is_view or adata.X is None or not hasattr(adata.X, "dtype"):
        if cells is not None:
            adata._inplace_subset_obs(np.asarray(cells))
        if genes is not None:
            adata._inplace_subset_var(np.asarray(genes))
        return
    x = subset_matrix(adata.X, cells, genes, op)
    layers = {k: subset_matrix(v, cells, genes, op) for k, v in adata.layers.items()}
    # Everything but the matrices, which anndata then subsets and copies.
    light = AnnData(
        obs=adata.obs,
        var=adata.var,
        uns=adata.uns,
        obsm=dict(adata.obsm),
        varm=dict(adata.varm),
        obsp=dict(adata.obsp),
        varp=dict(adata.varp),
        raw=adata.raw,
    )
    rows = slice(None) if cells is None else np.asarray(cells)
    cols = slice(None) if genes is None else np.asarray(genes)
    kept = light[rows, cols].copy()
    kept.X = x
    for k, v in layers.items():
        kept.layers[k] = v
    adata._init_as_actual(kept)
