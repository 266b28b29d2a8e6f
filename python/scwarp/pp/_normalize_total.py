from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .. import _core
from .._context import is_cupy, make_context
from .._matrix import check_matrix, pack
from .._on_disk import is_on_disk
from .._settings import logger
from .._slots import check_copy_inplace, get_matrix, make_actual, require_anndata, set_matrix

if TYPE_CHECKING:
    from anndata import AnnData

_OP = "pp.normalize_total"


def normalize_total(
    adata: AnnData,
    *,
    target_sum: float | None = None,
    exclude_highly_expressed: bool = False,
    max_fraction: float = 0.05,
    key_added: str | None = None,
    layer: str | None = None,
    obsm: str | None = None,
    inplace: bool = True,
    copy: bool = False,
    device: str | None = None,
) -> AnnData | dict[str, Any] | None:
    """Scale every cell to the same total: ``x_ij * target_sum / c_i``.

    Parameters
    ----------
    adata
        ``X`` (or ``layer``/``obsm``): cells x genes, dense, CSR or CSC, float or integer (integers become float32), on
        the host or in CuPy. Float matrices are scaled in their own buffer.
    target_sum
        Total per cell afterwards; ``None``: the median of the positive ``c_i``.
    exclude_highly_expressed
        Leave genes with more than ``max_fraction`` of the counts of any one cell out of ``c_i``.
    max_fraction
        In [0, 1].
    key_added
        Column of ``obs`` for the factor ``c_i / target_sum`` (float64).
    inplace
        ``False``: return ``{"X": matrix, "norm_factor": c_i / target_sum}`` and leave ``adata`` alone.
    copy
        Return a changed copy.
    device
        ``"cpu"`` or ``"cuda"``; default where the data are, else ``settings.device``.

    Notes
    -----
    A matrix on disk (``read_h5ad(..., backed="r")``) is normalised while it is read: without ``target_sum``, with
    ``exclude_highly_expressed`` or ``key_added`` one pass finds the ``c_i`` now, else the file is not touched.

    Cells without counts stay as they are. Same bits on CPU and CUDA, for any number of threads (tier A).
    """
    check_copy_inplace(_OP, copy, inplace)
    exclude_highly_expressed = bool(exclude_highly_expressed)
    require_anndata(adata, _OP)
    if copy:
        adata = adata.copy()
    source = get_matrix(adata, _OP, layer=layer, obsm=obsm)
    ctx = make_context(source, op=_OP, device=device)
    if inplace:
        if adata.is_view:  # what is wrong is said before the view becomes a copy
            check_matrix(source, _OP)
            empty, host = np.empty((0, 0), np.float32), make_context(op=_OP, device="cpu")
            _core.pp.normalize_total(host, empty, target_sum, exclude_highly_expressed, max_fraction, False)
            make_actual(adata, _OP)
            source = get_matrix(adata, _OP, layer=layer, obsm=obsm)
    else:
        source = source.copy()
    if is_on_disk(source):
        if target_sum is not None and not exclude_highly_expressed and key_added is None and inplace:
            _core.pp.normalize_total(ctx, np.empty((0, 0), np.float32), target_sum, False, 0.0, False)  # checks
            # No pass over the file: cells are counted when they are read.
            set_matrix(adata, source.then("normalize", float(target_sum)), layer=layer, obsm=obsm)
            return adata if copy else None
        packed: Any = pack(source, _OP, blocks=True)
        counts, target, n_empty = _core.pp.size_factors(
            ctx, packed.arg, target_sum, exclude_highly_expressed, max_fraction
        )
        result = source.then("scale", np.ascontiguousarray(counts), target)
    else:
        # Sums over a row and factors of a row are the same for any order of its entries, and for entries in two parts.
        packed = pack(source, _OP, mutable=True, any_order=not exclude_highly_expressed)
        with_counts = key_added is not None or not inplace
        counts, target, n_empty = _core.pp.normalize_total(
            ctx, packed.arg, target_sum, exclude_highly_expressed, max_fraction, with_counts
        )
        result = packed.result()
    if n_empty:
        logger.warning("%s: %d cells have no counts and stay as they are", _OP, n_empty)
    if not inplace:
        return {"X": result, "norm_factor": counts / target}
    set_matrix(adata, result, layer=layer, obsm=obsm)
    if key_added is not None:
        adata.obs[key_added] = (counts.get() if is_cupy(counts) else np.asarray(counts)) / target
    return adata if copy else None
