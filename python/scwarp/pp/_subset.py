from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .._slots import boolean_mask, make_actual, refuse_backed, require_anndata
from .._subset import subset_copy, subset_inplace

if TYPE_CHECKING:
    from anndata import AnnData

_OP = "pp.subset"


def subset(adata: AnnData, *, cells: Any = None, genes: Any = None, copy: bool = False) -> AnnData | None:
    """Keep some cells and genes: ``adata = adata[cells, genes].copy()``, in place and without its cost.

    Parameters
    ----------
    adata
        ``X`` and layers: dense, CSR or CSC, on the host or in CuPy; float32 and float64 matrices are subset by our own
        kernels, where they are.
    cells, genes
        Boolean array, or name of a boolean column of ``obs`` or ``var``; ``None``: all.
    copy
        Return the subset as a new object and leave ``adata`` alone.

    Notes
    -----
    ``obs``, ``var``, ``obsm``, ``varm``, ``obsp``, ``varp`` and ``raw`` follow as in anndata; categories that lose
    their last cell go. A mask that keeps everything copies nothing. Memory: the result.
    """
    require_anndata(adata, _OP)
    cells = boolean_mask(cells, adata.obs, adata.n_obs, _OP, "cells")
    genes = boolean_mask(genes, adata.var, adata.n_vars, _OP, "genes")
    refuse_backed(adata, _OP)
    if copy:
        return subset_copy(adata, _OP, cells=cells, genes=genes)
    make_actual(adata, _OP)
    subset_inplace(adata, _OP, cells=cells, genes=genes)
    return None
