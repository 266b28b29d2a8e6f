from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import _core
from .._context import is_cupy, make_context
from .._matrix import is_sparse, pack
from .._settings import logger
from .._slots import check_copy_inplace, get_matrix, make_actual, require_anndata, set_matrix

if TYPE_CHECKING:
    from anndata import AnnData

_OP = "pp.regress_out"


def regress_out(
    adata: AnnData,
    keys: str | Sequence[str],
    *,
    layer: str | None = None,
    n_jobs: int | None = None,
    copy: bool = False,
    inplace: bool = True,
    batchsize: int | str | None = None,
    verbose: bool = False,
    device: str | None = None,
) -> AnnData | Any | None:
    """Replace every gene by what a linear model of some columns of ``obs`` leaves unexplained.

    Parameters
    ----------
    adata
        ``X`` (or ``layer``): dense, CSR or CSC; sparse matrices become dense. Dense float matrices are changed in
        their own buffer.
    keys
        One or several numeric columns of ``obs``: residuals of the least-squares fit on them and a constant. Or one
        categorical (or text) column: the mean of each category is subtracted. An empty list means all columns.
    layer
        What to transform instead of ``X``.
    copy
        Return a changed copy.
    inplace
        ``False``: return the residuals and leave ``adata`` alone.
    n_jobs, batchsize, verbose
        Accepted for the sake of scanpy and rapids-singlecell; threads are set by ``settings.n_threads``.
    device
        ``"cpu"`` or ``"cuda"``; default where the data are, else ``settings.device``.

    Notes
    -----
    The result has the float type of the input. Constant or linearly dependent keys are harmless. Cells without a
    category keep their values. Same bits for any number of threads.
    """
    check_copy_inplace(_OP, copy, inplace)
    require_anndata(adata, _OP)
    if copy:
        adata = adata.copy()
    keys = [keys] if isinstance(keys, str) else list(keys) or list(adata.obs)
    regressor = _regressor(adata, keys)
    source = get_matrix(adata, _OP, layer=layer)
    if inplace and adata.is_view:
        make_actual(adata, _OP)
        source = get_matrix(adata, _OP, layer=layer)
    result = _residuals(source, regressor, device, fresh=not inplace)
    if not inplace:
        return result
    set_matrix(adata, result, layer=layer)
    return adata if copy else None


def _regressor(adata: AnnData, keys: list[str]) -> Any:
    """(codes, number of categories) of one categorical column, or the numeric columns as a matrix."""
    import pandas as pd

    missing = [k for k in keys if k not in adata.obs]
    if missing:
        raise KeyError(f"{_OP}: {', '.join(map(repr, missing))} not in obs (there are: {list(adata.obs)})")
    for k in keys:
        column = adata.obs[k]
        if isinstance(column.dtype, pd.CategoricalDtype) or not pd.api.types.is_numeric_dtype(column.dtype):
            if len(keys) > 1:
                raise ValueError(f"{_OP}: {k!r} is categorical; only a single categorical key is allowed (got {keys})")
            codes, names = pd.factorize(column, sort=False)
            return np.ascontiguousarray(codes, dtype=np.int32), len(names)
    matrix = np.empty((adata.n_obs, len(keys)))
    for i, k in enumerate(keys):  # several times faster than through a frame of them
        matrix[:, i] = adata.obs[k].to_numpy(dtype=np.float64, na_value=np.nan)
    if not np.isfinite(matrix.sum()) and not np.isfinite(matrix).all():  # a sum looks at them all, and faster
        cell, k = np.argwhere(~np.isfinite(matrix))[0]
        raise _core.DataError(
            f"{_OP}: key {keys[k]!r} is not a finite number for cell {adata.obs_names[cell]!r} (got {matrix[cell, k]})"
        )
    return matrix


def _residuals(x: Any, regressor: Any, device: str | None, *, fresh: bool) -> Any:
    ctx = make_context(x, op=_OP, device=device)
    values = getattr(x, "data", x) if is_sparse(x) else x
    wide = values.dtype.kind in "iu" and values.dtype.itemsize > 4
    int_dtype = "float64" if wide else "float32"
    if isinstance(regressor, tuple):
        codes, n = regressor
        if is_cupy(x):
            import cupy

            codes = cupy.asarray(codes)
        if is_sparse(x):
            logger.info("%s: the sparse matrix becomes dense", _OP)
            return _core.pp.regress_out_categories_to_dense(ctx, pack(x, _OP, int_dtype=int_dtype).arg, codes, n)
        packed = pack(x.copy() if fresh else x, _OP, mutable=True, int_dtype=int_dtype)
        _core.pp.regress_out_categories(ctx, packed.arg, codes, n)
        return packed.result()
    if is_sparse(x):
        logger.info("%s: the sparse matrix becomes dense", _OP)
        result, used = _core.pp.regress_out_to_dense(ctx, pack(x, _OP, int_dtype=int_dtype).arg, regressor)
    else:
        packed = pack(x.copy() if fresh else x, _OP, mutable=True, int_dtype=int_dtype)
        used = _core.pp.regress_out(ctx, packed.arg, regressor)
        result = packed.result()
    if used < regressor.shape[1] and len(regressor):
        logger.info(
            "%s: %d of %d keys are constant or depend on the others", _OP, regressor.shape[1] - used, regressor.shape[1]
        )
    return result
