"""Matrices to the GPU (CuPy) and back."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import _core
from .._context import copy_context, is_cupy
from .._matrix import is_sparse
from .._on_disk import is_on_disk
from .._settings import logger
from .._slots import get_matrix, make_actual, require_anndata, set_matrix

if TYPE_CHECKING:
    from anndata import AnnData

_INT32_MAX = np.iinfo(np.int32).max


def anndata_to_GPU(
    adata: AnnData, layer: str | None = None, *, convert_all: bool = False, copy: bool = False
) -> AnnData | None:
    """Move ``X`` (or a layer) to the GPU, as a CuPy array or CuPy CSR/CSC matrix.

    Parameters
    ----------
    layer
        Move ``layers[layer]`` instead of ``X``.
    convert_all
        Move ``X`` and every layer.
    copy
        Return a changed copy.

    Notes
    -----
    ``obsm``, ``obsp``, ``varm`` and ``raw`` stay on the host: operations copy what they need, and remember it.
    """
    return _convert(adata, "get.anndata_to_GPU", X_to_GPU, layer, convert_all, copy)


def anndata_to_CPU(
    adata: AnnData, layer: str | None = None, *, convert_all: bool = False, copy: bool = False
) -> AnnData | None:
    """Move ``X`` (or a layer) to the host, as a NumPy array or SciPy CSR/CSC matrix. Arguments as in
    :func:`anndata_to_GPU`."""
    return _convert(adata, "get.anndata_to_CPU", lambda x, _: X_to_CPU(x), layer, convert_all, copy)


def _convert(adata: AnnData, op: str, convert: Any, layer: str | None, convert_all: bool, copy: bool) -> AnnData | None:
    require_anndata(adata, op)
    if copy:
        adata = adata.copy()
    make_actual(adata, op)
    names = [layer] if layer is not None else [None]
    if convert_all:
        names = [None, *adata.layers]
    for name in names:
        x = get_matrix(adata, op, layer=name)
        if x is not None:
            set_matrix(adata, convert(x, "X" if name is None else f"layer {name!r}"), layer=name)
    return adata if copy else None


def X_to_GPU(X: Any, warning: str = "X") -> Any:
    """``X`` on the GPU: NumPy becomes CuPy, SciPy CSR/CSC becomes CuPy CSR/CSC with the same dtype, Dask arrays are
    mapped block by block. What is there already is returned as it is, and so, with a warning, is anything else.

    Sparse integers become float32 (float64 if they are past 2**24): CuPy has no sparse integers. Raises
    ``BackendUnavailable`` without a usable device.
    """
    if is_cupy(X):
        return X
    if _is_dask(X):
        meta = X._meta
        if isinstance(meta, np.ndarray) or (is_sparse(meta) and meta.format == "csr"):
            _gpu()
            return X.map_blocks(X_to_GPU, meta=X_to_GPU(meta))
        return X
    if is_on_disk(X):
        _gpu()
        logger.info("%s is on disk: loaded to be moved", warning)
        X = X.to_memory()
    if isinstance(X, np.ndarray):
        return _array_to_gpu(_gpu(), X)
    if is_sparse(X) and X.format in ("csr", "csc"):
        cp = _gpu()
        from cupyx.scipy import sparse as csp

        indptr, indices = X.indptr, X.indices
        if X.data.size <= _INT32_MAX and max(X.shape) <= _INT32_MAX:
            indptr, indices = (a.astype(np.int32, copy=False) for a in (indptr, indices))
        parts = [_array_to_gpu(cp, a) for a in (_sparse_values(X.data, warning), indices, indptr)]
        out = getattr(csp, f"{X.format}_matrix")(tuple(parts), shape=X.shape)
        if getattr(X, "_has_canonical_format", False):  # unless it is known: the device finds out sooner
            out.has_canonical_format = True
        return out
    warnings.warn(
        f"{warning} is a {type(X).__module__}.{type(X).__qualname__} and stays where it is: "
        "expected a NumPy array or a CSR/CSC matrix",
        Warning,
        stacklevel=2,
    )
    return X


def X_to_CPU(X: Any) -> Any:
    """``X`` on the host: CuPy becomes NumPy, CuPy CSR/CSC becomes SciPy CSR/CSC, Dask arrays of them are mapped block
    by block; anything else is returned as it is."""
    if _is_dask(X):
        return X.map_blocks(X_to_CPU, meta=X_to_CPU(X._meta)) if is_cupy(X._meta) else X
    if not is_cupy(X):
        return X
    if not hasattr(X, "format"):
        return _array_to_cpu(X)
    if X.format not in ("csr", "csc"):
        return X.get()
    import scipy.sparse as sp

    parts = tuple(_array_to_cpu(a) for a in (X.data, X.indices, X.indptr))
    out = getattr(sp, f"{X.format}_matrix")(parts, shape=X.shape, copy=False)
    if getattr(X, "_has_canonical_format", False):  # the property would compute it
        out.has_canonical_format = True
    return out


def _is_dask(x: Any) -> bool:
    return type(x).__module__.partition(".")[0] == "dask"


def _gpu() -> Any:
    """CuPy, or an error that says what is missing."""
    reason = _core.unavailable_reason("cuda")
    if reason:
        raise _core.BackendUnavailable(f"get.X_to_GPU: no usable CUDA device: {reason}")
    try:
        import cupy
    except ImportError:
        raise _core.BackendUnavailable("get.X_to_GPU: CuPy is not installed (pip install cupy-cuda13x)") from None
    return cupy


def _sparse_values(values: Any, name: str) -> Any:
    if values.dtype.kind in "fcb" and values.dtype.itemsize != 2:
        return values
    large = values.dtype.kind in "iu" and values.size and max(int(values.max()), -int(values.min())) > 2**24
    kind = np.float64 if large else np.float32
    logger.info(
        "get.X_to_GPU: %s is sparse %s, which CuPy does not have: it becomes %s", name, values.dtype, kind.__name__
    )
    return values.astype(kind)


def _array_to_gpu(cp: Any, x: Any) -> Any:
    x = np.asarray(x)
    order: Any = "F" if x.flags.f_contiguous and not x.flags.c_contiguous else "C"
    x = np.asarray(x, order=order)
    out = cp.empty(x.shape, x.dtype, order=order)
    if x.nbytes:
        _core.get.copy(copy_context("get.X_to_GPU", out), out.data.ptr, x.ctypes.data, x.nbytes, True)
    return out


def _array_to_cpu(x: Any) -> Any:
    import cupy

    order = "F" if x.flags.f_contiguous and not x.flags.c_contiguous else "C"
    x = cupy.asarray(x, order=order)
    out = _core.get.empty(x.nbytes, x.itemsize).view(x.dtype).reshape(x.shape, order=order)
    if x.nbytes:
        _core.get.copy(copy_context("get.X_to_CPU", x), out.ctypes.data, x.data.ptr, x.nbytes, False)
    return out
