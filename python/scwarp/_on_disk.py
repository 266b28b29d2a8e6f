"""Matrices that stay in their file: the X of ``read_h5ad(..., backed="r")`` and ``read_zarr(..., backed="r")``.

A matrix on disk is a file, the rows of it that are in use, and operations that are done to every block of rows as it is
read (the C++ side: ``io::FileRows`` and ``pp::TransformedRows``). It never changes: an operation gives a new one. For
AnnData it is a backed sparse matrix like its own, which needs no backed AnnData around it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from . import _core
from ._context import make_context


def is_on_disk(x: Any) -> bool:
    """Whether ``x`` is one of ours; does not import anndata."""
    return getattr(type(x), "_scwarp_on_disk", False) is True


def _is_anndatas(x: Any) -> bool:
    """A backed matrix of anndata's own, sparse, or an array of h5py or zarr."""
    module = type(x).__module__.partition(".")[0]
    return module in ("h5py", "zarr") or (module == "anndata" and hasattr(x, "group") and hasattr(x, "backend"))


def as_on_disk(x: Any, op: str, name: str = "X") -> Any:
    """Ours for ours and for anndata's backed matrices, else ``None``."""
    if is_on_disk(x):
        return x
    if not _is_anndatas(x):
        return None
    node = x.group if hasattr(x, "backend") and hasattr(x, "group") else x
    file: Any = getattr(node, "file", None)
    if not hasattr(file, "filename"):
        # Zarr: its folder, if it is in one, and its place in there
        folder = getattr(getattr(node, "store", None), "root", None)
        path, element = str(folder or ""), str(getattr(node, "path", "")).strip("/")
        if not (element and os.path.isdir(path) and _core.io.is_zarr(path)):
            raise TypeError(
                f"{op}: {name} is on disk in a store that is neither an HDF5 file nor a Zarr folder; load it first: "
                "adata = adata.to_memory()"
            )
        return open_matrix(path, element)
    if file.mode != "r":
        file.flush()
    return open_matrix(file.filename, node.name.strip("/"))


def open_matrix(path: str, element: str = "X") -> Any:
    """A matrix of an HDF5 file or a Zarr store, by rows."""
    file = _core.io.open_matrix(make_context(op="read_h5ad", device="cpu"), path, element)
    return _classes()[0 if file.is_sparse else 1](file)


def _unpickled(path: str, element: str, rows: Any, as_double: Any, steps: Any) -> Any:
    x = open_matrix(path, element)
    return type(x)(x.file, rows, as_double, steps)


@dataclass(frozen=True)
class _ByColumns:
    """In the place of a file's rows, for a matrix that has none (CSC): it does not keep the rest of the file from being
    opened, loads as a whole, and cannot be streamed."""

    path: str
    element: str
    shape: tuple[int, int]
    dtype: str
    n_entries: int
    is_sparse = True

    def load(self) -> Any:
        from .io._anndata import matrix_from

        read = _core.io.read_zarr_matrix if os.path.isdir(self.path) else _core.io.read_h5ad_matrix
        return matrix_from(read(make_context(op="read_h5ad", device="cpu"), self.path, self.element))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(open_matrix(self.path, self.element).file, name)  # says why not, and what to do


def open_columns(path: str, element: str, group: Any) -> Any:
    """The same for CSC, of which ``group`` is h5py's or zarr's."""
    n, m = (int(size) for size in group.attrs["shape"])
    data = group["data"]
    return _classes()[0](_ByColumns(path, element, (n, m), str(data.dtype), int(data.shape[0])))


def _columns_unpickled(file: _ByColumns, *rest: Any) -> Any:
    return _classes()[0](file, *rest)


def _positions(index: Any, n: int) -> Any:
    """An index along one axis as positions, or an ``int``."""
    if isinstance(index, (int, np.integer)):
        if not -n <= index < n:
            raise IndexError(f"index {index} is out of range for an axis of {n}")
        return int(index) % n
    if isinstance(index, slice):
        return np.arange(n)[index]
    index = np.asarray(index).ravel() if not hasattr(index, "to_numpy") else index.to_numpy().ravel()
    if index.dtype == bool:
        if index.size != n:
            raise IndexError(f"a boolean index has {index.size} entries, expected {n}")
        return np.flatnonzero(index)
    if index.size == 0:
        return np.zeros(0, np.int64)
    if index.dtype.kind not in "iu":
        raise IndexError(f"an index of dtype {index.dtype}; expected integers or bool")
    index = index.astype(np.int64)
    if index.min() < -n or index.max() >= n:
        raise IndexError(f"an index is out of range for an axis of {n}")
    return np.where(index < 0, index + n, index)


def _both_axes(index: Any) -> list[Any]:
    """What is asked for of the rows and of the columns; ``...`` stands for the axes that nothing is said about."""
    index = list(index) if isinstance(index, tuple) else [index]
    dots = [at for at, i in enumerate(index) if i is Ellipsis]
    if len(dots) > 1:
        raise IndexError("an index can only have a single ellipsis ('...')")
    at = dots[0] if dots else len(index)
    index[at : at + 1] = []
    if len(index) > 2:
        raise IndexError("too many indices for a matrix")
    index[at:at] = [slice(None)] * (2 - len(index))
    return index


def _rises(positions: Any) -> bool:
    return isinstance(positions, np.ndarray) and bool((np.diff(positions) > 0).all())


@cache
def _classes() -> tuple[type, type]:
    """(sparse, dense), made when anndata is there to derive from."""
    import anndata
    from anndata._core import sparse_dataset

    if not hasattr(sparse_dataset, "BaseCompressedSparseDataset"):
        raise ImportError('backed="r" needs anndata 0.10 or later')
    public = anndata.abc if hasattr(anndata, "abc") else sparse_dataset

    class SparseOnDisk(sparse_dataset.BaseCompressedSparseDataset, public.CSRDataset):  # type: ignore[misc,name-defined]
        """A sparse matrix of cells x genes that stays in its file.

        ``pp.normalize_total``, ``pp.log1p``, ``pp.sqrt``, filters and subsets give a new one with one more operation to
        do to every block that is read; functions that read the matrix stream it. Indexing and ``to_memory()`` load,
        with the bits that the same operations give in memory.
        """

        format = "csr"
        _scwarp_on_disk = True

        def __init__(self, file: Any, rows: Any = None, as_double: bool | None = None, steps: Any = ()) -> None:
            self.file = file
            self._rows = rows  # None: all
            self._as_double = as_double  # None: as stored; decided by the first operation
            self._steps = tuple(steps)

        @property
        def path(self) -> str:
            return str(self.file.path)

        @property
        def backend(self) -> str:
            """As in anndata's own: what the file is."""
            return "zarr" if os.path.isdir(self.path) else "hdf5"

        @property
        def is_sparse(self) -> bool:
            return bool(self.file.is_sparse)

        @property
        def shape(self) -> tuple[int, int]:
            n, m = self.file.shape
            for step in self._steps:
                if step[0] == "keep":
                    m = int(np.count_nonzero(step[1]))
            return (n if self._rows is None else len(self._rows)), m

        ndim = 2

        @property
        def dtype(self) -> Any:
            if self._as_double is None:
                return np.dtype(self.file.dtype)
            return np.dtype(np.float64 if self._as_double else np.float32)

        @property
        def pending(self) -> tuple[str, ...]:
            """Names of the operations that are done while reading."""
            return tuple(step[0] for step in self._steps)

        @property
        def T(self) -> Any:
            raise TypeError("a matrix on disk is read by rows and has no transpose; load it: adata = adata.to_memory()")

        @property
        def group(self) -> Any:
            raise AttributeError("a matrix on disk of scwarp has no group: use path and file.element")

        @property
        def n_entries(self) -> int:
            """Stored values of the cells in use (genes that are left out counted in)."""
            if self._rows is None:
                return int(self.file.n_entries)
            if isinstance(self.file, _ByColumns):
                return self.file.n_entries  # at most
            if self.is_sparse:
                return int(self.file.row_lengths()[self._rows].sum())
            return len(self._rows) * int(self.file.shape[1])

        @property
        def nbytes(self) -> int:
            """Bytes that the matrix would take in memory, at most (genes that are left out counted in)."""
            return self.n_entries * int(self.dtype.itemsize + (4 if self.is_sparse else 0))

        def __repr__(self) -> str:
            done = f", after {' and '.join(self.pending)}" if self._steps else ""
            kind = "sparse" if self.is_sparse else "dense"
            return (
                f"scwarp {kind} matrix on disk ('{self.path}', {self.file.element}): {self.shape}, {self.dtype}{done}"
            )

        def __len__(self) -> int:
            return self.shape[0]

        def __reduce__(self) -> Any:
            if isinstance(self.file, _ByColumns):
                return _columns_unpickled, (self.file, self._rows, self._as_double, self._steps)
            return _unpickled, (self.path, self.file.element, self._rows, self._as_double, self._steps)

        def copy(self) -> Any:
            """Itself: it never changes."""
            return self

        def __copy__(self) -> Any:
            return self

        def __deepcopy__(self, memo: Any) -> Any:
            return self

        def __setitem__(self, index: Any, value: Any) -> None:
            raise TypeError("a matrix on disk cannot be changed in place; load it first: adata = adata.to_memory()")

        def append(self, *args: Any) -> None:
            self.__setitem__(None, None)

        # ------------------------------------------------------------------------------------------------ operations

        def resolve_double(self, int_dtype: str) -> bool:
            """Whether values are computed as float64; ``int_dtype`` is what integers become if they fit."""
            if self._as_double is not None:
                return self._as_double
            stored = np.dtype(self.file.dtype)
            if stored.kind == "f":
                return bool(stored.itemsize > 4)
            if int_dtype == "float64":
                return True
            return not self.file.fits_float(make_context(op="read_h5ad", device="cpu"))

        def source(self, int_dtype: str = "float32") -> Any:
            """What C++ functions take."""
            if isinstance(self.file, _ByColumns):
                open_matrix(self.path, self.file.element)  # says why not
            steps = [
                ("keep", np.ascontiguousarray(step[1]).view(np.uint8)) if step[0] == "keep" else step
                for step in self._steps
            ]
            return _core.io.row_source(self.file, self._rows, self.resolve_double(int_dtype), steps)

        def then(self, *step: Any, int_dtype: str = "float32") -> Any:
            """One more operation; integers become floating-point numbers with the first one."""
            new = type(self)(self.file, self._rows, self.resolve_double(int_dtype), (*self._steps, step))
            new.source()  # checks
            return new

        def subset(self, cells: Any = None, genes: Any = None) -> Any:
            """The cells and genes of boolean masks (``None``: all), in order."""
            rows, steps = self._rows, self._steps
            if cells is not None:
                kept = np.flatnonzero(cells)
                rows = kept.astype(np.int64) if rows is None else rows[kept]
                # All operations go by rows, so that rows can be left out before them.
                steps = tuple((s[0], np.ascontiguousarray(s[1][kept]), s[2]) if s[0] == "scale" else s for s in steps)
            if genes is not None:
                genes = np.asarray(genes, dtype=bool)
                if steps and steps[-1][0] == "keep":
                    both = steps[-1][1].copy()
                    both[both] = genes
                    steps = (*steps[:-1], ("keep", both))
                else:
                    steps = (*steps, ("keep", genes.copy()))
            return type(self)(self.file, rows, self._as_double, steps)

        # ---------------------------------------------------------------------------------------------------- values

        def to_memory(self) -> Any:
            if isinstance(self.file, _ByColumns):  # no operation got as far as to be noted
                x = self.file.load()
                x = x if self._rows is None else x[self._rows]
                return x[:, np.flatnonzero(self._steps[0][1])] if self._steps else x
            ctx = make_context(op="read_h5ad", device="cpu")
            loaded = _core.io.load_rows(ctx, self.source())
            if not self.is_sparse:
                return loaded.astype(self.dtype, copy=False)
            import scipy.sparse as sp

            indptr, indices, data = loaded
            if data.size <= np.iinfo(np.int32).max:
                indptr = indptr.astype(np.int32)
            else:
                indices = indices.astype(np.int64)
            settings = getattr(anndata, "settings", None)
            kind = sp.csr_array if getattr(settings, "use_sparse_array_on_read", False) else sp.csr_matrix
            x = kind((data.astype(self.dtype, copy=False), indices, indptr), shape=self.shape, copy=False)
            x.has_sorted_indices = True
            x.has_canonical_format = True
            return x

        def _to_backed(self) -> Any:
            return self.to_memory()

        def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
            if self.is_sparse:
                raise TypeError("a sparse matrix on disk: use to_memory(), or toarray() if it is small")
            return self.to_memory().astype(dtype or self.dtype, copy=False)

        def toarray(self) -> Any:
            x = self.to_memory()
            return x.toarray() if self.is_sparse else x

        def __getitem__(self, index: Any) -> Any:
            """Values in memory of the rows and columns asked for; no others are kept."""
            wanted = _both_axes(index)
            masks: list[Any] = []
            inside: list[Any] = []  # positions within what is loaded
            for axis, i in enumerate(wanted):
                n = self.shape[axis]
                positions = _positions(i, n)
                if isinstance(i, slice) and positions.size == n and _rises(positions):
                    masks.append(None)
                    inside.append(slice(None))
                    continue
                mask = np.zeros(n, bool)
                mask[positions] = True
                masks.append(mask)
                if isinstance(positions, int):
                    inside.append(0)
                else:
                    inside.append(slice(None) if _rises(positions) else np.cumsum(mask)[positions] - 1)
            x = self.subset(*masks).to_memory()
            rows, cols = inside
            if isinstance(cols, np.ndarray):
                x, cols = x[:, cols], slice(None)
            if isinstance(rows, slice) and isinstance(cols, slice):
                return x
            return x[rows, cols]

    class DenseOnDisk(SparseOnDisk):
        """The same for a matrix that is stored dense."""

    for kind in (SparseOnDisk, DenseOnDisk):
        kind.__module__, kind.__qualname__ = "scwarp", kind.__name__
    _register(SparseOnDisk, DenseOnDisk)
    return SparseOnDisk, DenseOnDisk


def _register(sparse: type, dense: type) -> None:
    """How anndata subsets, views and writes them."""
    import h5py
    from anndata._core import index, views
    from anndata._io.specs import registry

    def subset(x: Any, wanted: Any) -> Any:
        """A view's X stays on disk if its cells and genes are in the order of the file."""
        wanted = wanted if isinstance(wanted, tuple) else (wanted,)
        positions = [_positions(i, n) for i, n in zip(wanted, x.shape, strict=False)]
        if not all(map(_rises, positions)):
            return x[tuple(p if isinstance(p, np.ndarray) else np.array([p]) for p in positions)]
        masks = []
        for p, n in zip(positions, x.shape, strict=False):
            mask = np.zeros(n, bool)
            mask[p] = True
            masks.append(None if p.size == n else mask)
        return x.subset(*masks)

    index._subset.register(sparse, subset)
    views.as_view.register(sparse, lambda x, view_args: x)

    def write_sparse(f: Any, k: str, x: Any, *, dataset_kwargs: Any = None, **_: Any) -> None:
        x = _in_rows(x)
        group, kwargs = f.create_group(k), dict(dataset_kwargs or {})
        group.attrs["shape"] = x.shape
        data = group.create_dataset("data", (0,), x.dtype, maxshape=(None,), chunks=(_CHUNK,), **kwargs)
        indices = group.create_dataset("indices", (0,), np.int32, maxshape=(None,), chunks=(_CHUNK,), **kwargs)
        indptr = [np.zeros(1, np.int64)]
        for first, last in row_ranges(x):
            part = x[first:last]
            done = data.shape[0]
            for to, values in ((data, part.data), (indices, part.indices)):
                to.resize((done + part.nnz,))
                to[done:] = values
            indptr.append(part.indptr[1:].astype(np.int64) + done)
        group.create_dataset("indptr", data=np.concatenate(indptr), **kwargs)

    def write_dense(f: Any, k: str, x: Any, *, dataset_kwargs: Any = None, **_: Any) -> None:
        out = f.create_dataset(k, x.shape, x.dtype, **dict(dataset_kwargs or {}))
        for first, last in row_ranges(x):
            out[first:last] = x[first:last]

    def write_sparse_zarr(f: Any, k: str, x: Any, **_: Any) -> None:
        x = _in_rows(x)
        group = f.create_group(k)
        group.attrs["shape"] = list(x.shape)
        data = group.create_array("data", shape=(0,), dtype=x.dtype, chunks=(_CHUNK,))
        indices = group.create_array("indices", shape=(0,), dtype=np.int32, chunks=(_CHUNK,))
        indptr = [np.zeros(1, np.int64)]
        for first, last in row_ranges(x):
            part = x[first:last]
            done = data.shape[0]
            data.append(part.data)
            indices.append(part.indices.astype(np.int32))
            indptr.append(part.indptr[1:].astype(np.int64) + done)
        group.create_array("indptr", data=np.concatenate(indptr))

    def write_dense_zarr(f: Any, k: str, x: Any, **_: Any) -> None:
        out = f.create_array(k, shape=x.shape, dtype=x.dtype)
        for first, last in row_ranges(x):
            out[first:last] = x[first:last]

    writers = [(h5py.Group, write_sparse, write_dense)]
    try:
        from zarr import Group
    except ImportError:  # optional
        pass
    else:
        if hasattr(Group, "create_array"):  # zarr-python 3
            writers.append((Group, write_sparse_zarr, write_dense_zarr))
    for group_type, for_sparse, for_dense in writers:
        for kind, spec, write in (
            (sparse, registry.IOSpec("csr_matrix", "0.1.0"), for_sparse),
            (dense, registry.IOSpec("array", "0.2.0"), for_dense),
        ):
            registry._REGISTRY.register_write(group_type, kind, spec)(write)


def _in_rows(x: Any) -> Any:
    """What can be read part by part: CSC is loaded, once."""
    return x.to_memory().tocsr() if isinstance(x.file, _ByColumns) else x


_CHUNK = 1 << 17
_PART_BYTES = 1 << 27


def row_ranges(x: Any) -> Any:
    """(first, last) of parts that take about _PART_BYTES in memory."""
    n = x.shape[0]
    size = x.nbytes if hasattr(x, "nbytes") else x.data.nbytes + x.indices.nbytes
    step = max(1, int(n * _PART_BYTES / max(1, size)))
    return ((first, min(n, first + step)) for first in range(0, n, step))
