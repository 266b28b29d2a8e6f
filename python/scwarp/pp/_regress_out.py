from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import _core
from .._context import is_cupy, make_context
from .._groups import categorical_column, is_text
from .._matrix import is_sparse, pack, to_numpy
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
    lazy: bool = False,
    device: str | None = None,
) -> AnnData | Any | None:
    """Replace every gene by what a linear model of some columns of ``obs`` leaves unexplained.

    Parameters
    ----------
    adata
        ``X`` (or ``layer``): dense, CSR or CSC; sparse matrices become dense. With numeric keys dense float matrices
        are changed in their own buffer, as in scanpy.
    keys
        One or several numeric columns of ``obs``: residuals of the least-squares fit on them and a constant. Or one
        categorical column: the mean of each category is subtracted; a column of text becomes categorical (unless
        ``inplace=False``). An empty list means all columns.
    layer
        What to transform instead of ``X``.
    copy
        Return a changed copy.
    inplace
        ``False``: return the residuals and leave ``adata`` alone.
    n_jobs, batchsize, verbose
        Accepted for the sake of scanpy and rapids-singlecell; threads are set by ``settings.n_threads``.
    lazy
        Leave ``X`` (or ``layer``) as it is, sparse or dense, and note the fit in ``uns["regress_out"]`` and
        ``varm["regress_out"]``: ``scale(lazy=True)`` and ``pca`` then work on the residuals without ever making them
        (scores within 1e-5 of the largest). Other functions see ``X``.
    device
        ``"cpu"`` or ``"cuda"``; default where the data are, else ``settings.device``.

    Notes
    -----
    The result has the float type of the input. Constant or linearly dependent keys are harmless. Cells without a
    category keep their values. Same bits for any number of threads. Memory: a new dense matrix, unless the keys are
    numeric and the matrix dense and float.
    """
    check_copy_inplace(_OP, copy, inplace)
    require_anndata(adata, _OP)
    if copy:
        adata = adata.copy()
    keys = [keys] if isinstance(keys, str) else list(keys) or list(adata.obs)
    if lazy and not inplace:
        raise ValueError(f"{_OP}: lazy=True does not go with inplace=False")
    regressor, names = _regressor(adata, keys)
    source = get_matrix(adata, _OP, layer=layer)
    if lazy:
        _note(adata, source, keys, regressor, names, layer, device)
        return adata if copy else None
    own = inplace and (copy or adata.is_view)  # a copy has just been made
    if inplace and adata.is_view:
        make_actual(adata, _OP)
        source = get_matrix(adata, _OP, layer=layer)
    result = _residuals(source, regressor, names, device, fresh=not inplace or (names is not None and not own))
    if not inplace:
        return result
    _categorise(adata, keys)
    set_matrix(adata, result, layer=layer)
    if _noted(adata, layer) is not None:
        del adata.uns["regress_out"]  # what was put off is done now
    return adata if copy else None


def _note(
    adata: AnnData, x: Any, keys: list[str], regressor: Any, names: Any, layer: str | None, device: str | None
) -> None:
    ctx = make_context(x, op=_OP, device=device)
    arg = pack(x, _OP, int_dtype=_int_dtype(x)).arg
    note: dict[str, Any] = {"lazy": True, "keys": np.array(keys, dtype=object)}
    if names is not None:
        codes = regressor
        if is_cupy(x):
            import cupy

            codes = cupy.asarray(codes)
        fit = to_numpy(_core.pp.gene_moments(ctx, arg, codes, len(names))[0])
        note["categories"] = np.array([str(c) for c in names], dtype=object)
    else:
        fit, used = _core.pp.fit_regression(ctx, arg, regressor)
        _say_unused(used, regressor)
    if layer is not None:
        note["layer"] = layer
    make_actual(adata, _OP)
    _categorise(adata, keys)
    adata.varm["regress_out"] = np.ascontiguousarray(fit.T)
    adata.uns["regress_out"] = note


def _noted(adata: AnnData, layer: str | None) -> Any:
    note = adata.uns.get("regress_out")
    if not isinstance(note, Mapping) or not note.get("lazy", False) or note.get("layer") != layer:
        return None
    return note


def noted_residuals(adata: AnnData, layer: str | None, op: str) -> Any:
    """What ``regress_out(lazy=True)`` left to do for ``X`` or a layer: ``f(packed matrix, gene mask)`` gives what the
    C++ side takes in place of the matrix. ``None`` if there is nothing.
    """
    note = _noted(adata, layer)
    if note is None:
        return None
    if "regress_out" not in adata.varm:
        raise KeyError(f'{op}: varm["regress_out"], the fit of regress_out(lazy=True), is gone')
    fit = np.ascontiguousarray(np.asarray(adata.varm["regress_out"], dtype=np.float64).T)
    keys = [str(k) for k in np.atleast_1d(note["keys"])]
    if "categories" in note:
        codes, names = _regressor(adata, keys)
        place = {str(c): i for i, c in enumerate(note["categories"])}
        regressor = np.array([*(place.get(str(c), -1) for c in names), -1], dtype=np.int32)[
            codes
        ]  # code -1 is the last
    else:
        regressor = _regressor(adata, keys)[0]

    def source(arg: Any, mask: Any = None) -> Any:
        return "residuals", arg, regressor, fit, None if mask is None else np.ascontiguousarray(mask).view(np.uint8)

    return source


def _regressor(adata: AnnData, keys: list[str]) -> tuple[Any, Any]:
    """(codes, categories) of one categorical column, or (the numeric columns as a matrix, ``None``)."""
    import pandas as pd

    missing = [k for k in keys if k not in adata.obs]
    if missing:
        raise KeyError(f"{_OP}: {', '.join(map(repr, missing))} not in obs (there are: {list(adata.obs)})")
    for k in keys:
        column = adata.obs[k]
        if isinstance(column.dtype, pd.CategoricalDtype) or not pd.api.types.is_numeric_dtype(column.dtype):
            if len(keys) > 1:
                raise ValueError(f"{_OP}: {k!r} is categorical; only a single categorical key is allowed (got {keys})")
            column = column.astype("category")
            return np.ascontiguousarray(column.cat.codes, dtype=np.int32), column.cat.categories
    columns = []
    for k in keys:  # several times faster than through a frame of them
        column = adata.obs[k]
        plain = isinstance(column.dtype, np.dtype)  # not pandas' own types, which have a missing value of their own
        columns.append(column.to_numpy() if plain else column.to_numpy(dtype=np.float64, na_value=np.nan))
    matrix = np.empty((adata.n_obs, len(keys)))
    for first in range(0, adata.n_obs, 8192):  # by rows that stay in the cache until all columns are in them
        rows = slice(first, first + 8192)
        for i, values in enumerate(columns):
            matrix[rows, i] = values[rows]
    if not np.isfinite(matrix.sum()) and not np.isfinite(matrix).all():  # a sum looks at them all, and faster
        cell, k = np.argwhere(~np.isfinite(matrix))[0]
        raise _core.DataError(
            f"{_OP}: key {keys[k]!r} is not a finite number for cell {adata.obs_names[cell]!r} (got {matrix[cell, k]})"
        )
    return matrix, None


def _categorise(adata: AnnData, keys: list[str]) -> None:
    for k in keys:
        if is_text(adata.obs[k]):
            adata.obs[k] = categorical_column(adata, k, _OP)


def _int_dtype(x: Any) -> str:
    return "float64" if x.dtype.kind in "iu" and x.dtype.itemsize > 4 else "float32"


def _say_unused(used: int, regressor: Any) -> None:
    if used < regressor.shape[1] and len(regressor):
        logger.info(
            "%s: %d of %d keys are constant or depend on the others", _OP, regressor.shape[1] - used, regressor.shape[1]
        )


def _residuals(x: Any, regressor: Any, names: Any, device: str | None, *, fresh: bool) -> Any:
    ctx = make_context(x, op=_OP, device=device)
    int_dtype = _int_dtype(x)
    if names is not None:
        codes, n = regressor, len(names)
        if is_cupy(x):
            import cupy

            codes = cupy.asarray(codes)
        if is_sparse(x):
            logger.info("%s: the sparse matrix becomes dense", _OP)
            return _core.pp.regress_out_categories_to_dense(ctx, pack(x, _OP, int_dtype=int_dtype).arg, codes, n)
        packed = pack(x, _OP, mutable=True, fresh=fresh, int_dtype=int_dtype)
        _core.pp.regress_out_categories(ctx, packed.arg, codes, n)
        return packed.result()
    if is_sparse(x):
        logger.info("%s: the sparse matrix becomes dense", _OP)
        result, used = _core.pp.regress_out_to_dense(ctx, pack(x, _OP, int_dtype=int_dtype).arg, regressor)
    else:
        packed = pack(x, _OP, mutable=True, fresh=fresh, int_dtype=int_dtype)
        used = _core.pp.regress_out(ctx, packed.arg, regressor)
        result = packed.result()
    _say_unused(used, regressor)
    return result
