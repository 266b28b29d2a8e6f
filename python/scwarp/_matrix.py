"""Matrices in and out: any cells x genes container becomes what the C++ side takes, once, with a log line.

The C++ side takes C-contiguous float32/float64 arrays, or CSR as ``(indptr int64, indices int32, data, n_cols)`` with
sorted, unique indices.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from . import _core
from ._context import is_cupy, make_context
from ._on_disk import as_on_disk, is_on_disk
from ._settings import logger

_FLOATS = ("float32", "float64")
_INT32_MAX = 2**31 - 1


def is_sparse(x: Any) -> bool:
    return hasattr(x, "indptr") and hasattr(x, "indices") and hasattr(x, "tocsr")


def sparse_format(x: Any) -> str:
    return str(x.format)


def _array_module(x: Any) -> Any:
    if is_cupy(x):
        import cupy

        return cupy
    return np


def check_container(x: Any, op: str, name: str = "X") -> None:
    """TypeError with advice unless ``x`` is a dense 2-D array or a CSR/CSC matrix, on the host or in CuPy."""
    if x is None:
        raise ValueError(f"{op}: {name} is None")
    module = type(x).__module__.partition(".")[0]
    if module == "dask":
        raise TypeError(f"{op}: {name} is a Dask array; compute it first: adata.X = adata.X.compute()")
    if is_on_disk(x) or module == "h5py" or type(x).__name__.endswith("Dataset"):
        raise TypeError(
            f"{op}: {name} is on disk (backed), which this operation does not read in blocks; "
            "load it first: adata = adata.to_memory()"
        )
    if hasattr(x, "indptr") or hasattr(x, "tocsr"):
        if getattr(x, "format", None) not in ("csr", "csc"):
            raise TypeError(f"{op}: {name} is sparse {x.format!r}; convert it with {name} = {name}.tocsr()")
        return
    if isinstance(x, np.ndarray) or is_cupy(x):
        if isinstance(x, np.matrix):
            raise TypeError(f"{op}: {name} is a numpy.matrix; convert it with numpy.asarray({name})")
        if isinstance(x, np.ma.MaskedArray):
            raise TypeError(
                f"{op}: {name} is a numpy.ma.MaskedArray, whose mask would not count; use {name}.filled(0), or another "
                f"value for what it hides, or {name}.data for the values as they are"
            )
        if x.ndim != 2:
            raise ValueError(f"{op}: {name} has {x.ndim} dimensions, expected 2 (cells x genes)")
        return
    raise TypeError(
        f"{op}: {name} is a {type(x).__module__}.{type(x).__qualname__}; "
        "expected a NumPy or CuPy array or a CSR/CSC matrix: convert it with numpy.asarray or scipy.sparse.csr_matrix"
    )


def check_matrix(x: Any, op: str) -> None:
    """The error that ``pack`` would raise for a matrix in memory, without its work."""
    if not is_on_disk(x):
        check_container(x, op)
        _float_dtype((x.data if is_sparse(x) else x)[:0], "float32", op)


def _float_dtype(values: Any, int_dtype: str, op: str) -> str:
    """The float type that a values array is computed in. Integers over 2**24 are not exact in float32."""
    name = str(values.dtype)
    if name in _FLOATS:
        return name
    kind = values.dtype.kind
    if kind not in "iubf":
        raise TypeError(f"{op}: values of dtype {name}; expected float32, float64, an integer type or bool")
    if name == "float16":
        return "float32"
    if kind == "f":
        return "float64"
    if int_dtype == "float32" and kind in "iu" and values.size and int(abs(values).max()) > 2**24:
        logger.info("%s: integers over 2**24 are not exact in float32: computing in float64", op)
        return "float64"
    return int_dtype


def to_numpy(x: Any) -> Any:
    """A CuPy array as a NumPy array; anything else as it is."""
    return x.get() if is_cupy(x) else x


def is_canonical(x: Any, op: str, name: str = "X") -> bool:
    """Whether the indices of a CSR or CSC matrix are sorted and unique; found out once for each matrix object.

    CuPy's own test walks every row with one thread and costs more than most operations: ours is one read of the
    indices, and it also finds indices that are out of range, with which kernels would read and write elsewhere.
    """
    if not is_cupy(x) or "_has_canonical_format" in vars(x):
        return bool(x.has_canonical_format)
    if getattr(x, "_has_sorted_indices", True):
        import cupy

        indptr = cupy.ascontiguousarray(x.indptr, dtype=np.int64)
        indices = cupy.ascontiguousarray(x.indices, dtype=np.int32)
        n_cols = x.shape[0] if sparse_format(x) == "csc" else x.shape[1]
        defects = _core.pp.csr_defects(make_context(x, op=op), indptr, indices, int(n_cols))
        if defects & 2:
            raise ValueError(f"{op}: {name} has an index outside of its shape {x.shape}")
        x.has_canonical_format = defects == 0
    return bool(x.has_canonical_format)


def _writeable(x: Any) -> bool:
    return bool(getattr(x.flags, "writeable", True))  # CuPy arrays always are


class Packed:
    """A matrix as the C++ side takes it (``arg``), and the way back (``result``)."""

    def __init__(self, arg: Any, matrix: Any, restore: Any) -> None:
        self.arg = arg
        self.matrix = matrix
        self._restore = restore

    @property
    def shape(self) -> tuple[int, int]:
        return tuple(self.matrix.shape)

    @property
    def dtype(self) -> Any:
        return self.matrix.dtype

    def result(self) -> Any:
        """The matrix in the caller's format (CSC stays CSC) after an operation changed ``arg`` in place."""
        return self._restore(self.matrix)


def _same(matrix: Any) -> Any:
    return matrix


def _to_csc(matrix: Any) -> Any:
    return matrix.tocsc()


def _csr_arg(x: Any, op: str) -> tuple[Any, Any, Any, int]:
    xp = _array_module(x)
    if x.shape[0] > _INT32_MAX or x.shape[1] > _INT32_MAX:
        raise ValueError(f"{op}: shape {x.shape} is past 2**31 - 1 rows or columns")
    indptr, indices = x.indptr, x.indices
    # One widening of the row offsets or one narrowing of the column indices; values are never touched.
    return (
        xp.ascontiguousarray(indptr, dtype=np.int64),
        xp.ascontiguousarray(indices, dtype=np.int32),
        xp.ascontiguousarray(x.data),
        int(x.shape[1]),
    )


class PackedRows(Packed):
    """A matrix on disk: ``arg`` goes where a packed matrix of an operation that reads blocks of rows goes."""

    def __init__(self, x: Any, int_dtype: str) -> None:
        super().__init__(x.source(int_dtype), x, _same)
        self._double = x.resolve_double(int_dtype)

    @property
    def dtype(self) -> Any:
        return np.dtype(np.float64 if self._double else np.float32)


def pack(
    x: Any,
    op: str,
    *,
    name: str = "X",
    mutable: bool = False,
    fresh: bool = False,
    int_dtype: str = "float32",
    blocks: bool = False,
    any_order: bool = False,
) -> Packed:
    """Cells x genes for an operation that works along rows.

    mutable
        The operation changes the values in place: the caller's own buffer where that is a float matrix in the right
        layout (scanpy does the same), else a converted copy; ``result()`` is then what belongs into the slot.
    fresh
        Never the caller's own buffer: a copy, unless the conversion made one.
    int_dtype
        What integers become.
    blocks
        The operation reads blocks of rows one after another: a matrix on disk will do.
    any_order
        The operation does not read the column indices, and unsorted or duplicate ones do not change its result: they
        are not looked at and stay as they are.
    """
    if blocks and (on_disk := as_on_disk(x, op, name)) is not None:
        return PackedRows(on_disk, int_dtype)
    check_container(x, op, name)
    xp = _array_module(x)
    restore = _same
    given = x
    if is_sparse(x):
        dtype = _float_dtype(x.data, int_dtype, op)
        if sparse_format(x) == "csc":
            logger.info("%s: %s is CSC: converted to CSR for this operation", op, name)
            x = x.tocsr()
            restore = _to_csc
        elif mutable and not _writeable(x.data):
            x = x.copy()
        if not any_order and not is_canonical(x, op, name):
            logger.info("%s: %s has unsorted or duplicate indices: working on a canonical copy", op, name)
            x = x.copy()
            x.sum_duplicates()
        if str(x.dtype) != dtype:
            logger.info("%s: %s is %s: computed as %s", op, name, x.dtype, dtype)
            x = x.astype(dtype)
        if (mutable and not x.data.flags.c_contiguous) or (fresh and x is given):
            x = x.copy()
        return Packed(_csr_arg(x, op), x, restore)
    dtype = _float_dtype(x, int_dtype, op)
    if str(x.dtype) != dtype:
        logger.info("%s: %s is %s: computed as %s", op, name, x.dtype, dtype)
    dense = xp.ascontiguousarray(x, dtype=dtype)
    if type(dense) is not xp.ndarray:  # AnnData's ArrayView and other subclasses
        dense = dense.view(xp.ndarray)
    if (mutable and not _writeable(dense)) or (fresh and xp.may_share_memory(dense, given)):
        dense = dense.copy()
    return Packed(dense, dense, restore)
