from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from .. import _core
from .._context import is_cupy, make_context
from .._settings import logger
from ._anndata import H5AD, read_anndata

if TYPE_CHECKING:
    from anndata import AnnData

_CHUNK_BYTES = 512 << 10
_SORTED_AT_ONCE = 1 << 17  # values


def read_h5ad(
    filename: str | os.PathLike[str],
    backed: str | bool | None = None,
    *,
    check_counts: bool = False,
    obs_mask: Any = None,
    var_mask: Any = None,
    device: str | None = None,
    layers_on_device: bool = False,
) -> AnnData:
    """Read an h5ad file into an AnnData.

    ``X`` and ``layers`` are read by scwarp, whose threads unpack gzip, zstd, blosc, lz4 and lzf; the rest by anndata.
    Indices are checked.

    Parameters
    ----------
    filename
        The file.
    backed
        ``"r"``: ``X``, ``layers`` and ``raw.X`` stay in the file, and may be larger than the memory. Functions that
        read the matrix stream it in blocks of rows (``settings.block_bytes``), on the CPU or through the GPU;
        ``pp.normalize_total``, ``pp.log1p``, ``pp.sqrt``, filters and subsets are noted and done to every block that is
        read; indexing and ``adata.to_memory()`` load. All of it with the bits of the same steps in memory. The file is
        never changed, and must stay where it is. It needs an ``X`` that is dense or CSR; ``layers`` and
        ``raw.X`` that are CSC load as a whole where their values are used, and are not streamed
        (:func:`scwarp.io.convert` with ``csr=True`` turns them). Integers above 2**53 are an error.
    check_counts
        Refuse NaN, infinite and negative values in ``X``: :class:`scwarp.DataError` names the first cell and gene.
    obs_mask, var_mask
        Which cells and genes to read: booleans, or positions that rise. The result is that of
        ``read_h5ad(filename)[obs_mask, var_mask].copy()``, but of ``X``, ``layers`` and ``raw.X`` only the selected
        values are ever in memory.
    device
        ``"cuda"`` (``"cuda:1"``): ``X`` becomes a CuPy matrix, CSR if it is sparse; it is unpacked on its way to the
        device and never lies on the host as a whole. ``None`` and ``"cpu"``: the host.
    layers_on_device
        The same for ``layers``; else they stay on the host.
    """
    return read_anndata(
        H5AD,
        os.fspath(filename),
        backed,
        check_counts=check_counts,
        obs_mask=obs_mask,
        var_mask=var_mask,
        device=device,
        layers_on_device=layers_on_device,
    )


def write_h5ad(
    adata: AnnData,
    filename: str | os.PathLike[str],
    *,
    compression: Literal["gzip", "zstd"] | None = "gzip",
    compression_level: int | None = None,
    chunk_bytes: int | None = None,
    device: str | None = None,
) -> None:
    """Write an AnnData to an h5ad file that anndata 0.8 and later read.

    The file is complete or not there: it takes its place once all of it is on disk, and a run that is killed leaves
    nothing behind. ``adata`` is left as it is (anndata's own writer turns text columns into categories in place; here
    only the file has them). ``None`` values of ``uns`` are left out: anndata before 0.12 cannot read them.

    Matrices of numbers (``X``, ``layers``, ``raw.X``, ``obsm``, ``varm``, ``obsp``, ``varp``) go from their arrays into
    the file, whatever their type and layout; CSC stays CSC. Indices are stored with 32 bits.

    Parameters
    ----------
    adata
        What to write.
    filename
        The file; replaced if it exists.
    compression
        ``"gzip"``: read by everything. ``"zstd"``: unpacks several times faster; other programs need ``import
        hdf5plugin`` (HDF5 filter 32015). ``None``: none. Numbers are shuffled bytewise first. scwarp's threads
        compress; the bytes do not depend on their number.
    compression_level
        gzip 1 to 12 (default 1: smaller than anndata's file without shuffling at level 4), zstd 1 to 19 (default 3);
        0: no compression.
    chunk_bytes
        Size of a chunk before compression, default 512 KiB: 131 072 values of a sparse matrix, some 50 to 100 cells, so
        that reading a block of cells unpacks little else.
    device
        Packing is the CPU's work, whatever the device; matrices on a GPU are copied to the host for it.
    """
    op = "write_h5ad"
    if compression not in ("gzip", "zstd", None):
        raise ValueError(f"{op}: compression must be 'gzip', 'zstd' or None (got {compression!r})")
    target = os.fspath(filename)
    ctx = make_context(op=op, device=device)
    image, streams = _light(adata)
    _core.io.write_h5ad(
        ctx,
        image,
        target,
        streams,
        compression or "none",
        -1 if compression_level is None else compression_level,
        _CHUNK_BYTES if chunk_bytes is None else chunk_bytes,
    )
    logger.debug("%s: %s", op, target)


def _light(adata: AnnData) -> tuple[bytes, list[tuple[str, tuple[Any, ...]]]]:
    """What the C++ writers take: an h5ad image of everything but the matrices, and those by their places."""
    import anndata
    import scipy.sparse as sp

    slots = ("layers", "obsm", "varm", "obsp", "varp")
    matrices: dict[str, Any] = {"X": adata.X}
    for slot in slots:
        matrices.update({f"{slot}/{k}": v for k, v in getattr(adata, slot).items() if "/" not in k})
    if adata.raw is not None:
        matrices["raw/X"] = adata.raw.X
    streams = {k: s for k, v in matrices.items() if (s := _stream(v)) is not None}
    for name in streams:
        _refuse_duplicates(name, matrices[name])
    for name, x in matrices.items():
        if getattr(getattr(x, "dtype", None), "kind", "") == "c" and (name in ("X", "raw/X") or sp.issparse(x)):
            raise TypeError(
                f"write: {name} is {x.dtype}, and only dense layers and obsm can hold complex numbers: write its real "
                "and its imaginary part"
            )

    def rest(path: str, value: Any) -> Any:
        """What anndata is given: a matrix of the same shape without values where scwarp writes them."""
        return sp.csr_matrix(value.shape, dtype=np.float32) if path in streams else value

    light = anndata.AnnData(
        X=rest("X", adata.X),
        obs=adata.obs.copy(),
        var=adata.var.copy(),
        uns=_without_none(adata.uns, "uns"),
        **{slot: {k: rest(f"{slot}/{k}", v) for k, v in getattr(adata, slot).items()} for slot in slots},
    )
    if adata.raw is not None:
        raw = anndata.AnnData(
            X=rest("raw/X", adata.raw.X), var=adata.raw.var, varm=dict(adata.raw.varm), obs=light.obs[[]]
        )
        light.raw = raw
    return _image(light), list(streams.items())


def _image(adata: AnnData) -> bytes:
    """The bytes of an h5ad file: in memory, so that nobody has to clear it away."""
    import anndata
    import h5py

    adata.strings_to_categoricals()
    if adata.raw is not None:
        adata.strings_to_categoricals(adata.raw.var)
    write = anndata.io.write_elem if hasattr(anndata, "io") else anndata.experimental.write_elem
    with h5py.File("scwarp", "w", driver="core", backing_store=False) as f:
        write(f, "/", adata)
        f.flush()
        return bytes(f.id.get_file_image())


def _without_none(tree: Any, path: str) -> dict[str, Any]:
    """A nested dict without its None values: anndata before 0.12 neither writes them nor reads a file with them."""
    out: dict[str, Any] = {}
    for key, value in tree.items():
        if value is None:
            logger.debug("write_h5ad: %s/%s is None and is left out, as anndata 0.8 to 0.11 leave it out", path, key)
        else:
            out[key] = _without_none(value, f"{path}/{key}") if isinstance(value, Mapping) else value
    return out


def _stream(x: Any) -> tuple[Any, ...] | None:
    """A matrix of numbers as the C++ writer takes it, without a copy; None for anything else."""
    import scipy.sparse as sp

    if is_cupy(x):
        x = x.get()
    if isinstance(x, np.ndarray):
        if x.ndim != 2 or not _is_number(x.dtype) or isinstance(x, np.ma.MaskedArray):
            return None
        return ("dense", *x.shape, x.dtype.name, np.asarray(x))
    if not sp.issparse(x) or x.format not in ("csr", "csc") or x.ndim != 2 or not _is_number(x.data.dtype):
        return None
    if max(x.shape) >= 2**31 or not x.indices.dtype == x.indptr.dtype in (np.int32, np.int64):
        return None
    parts = [np.ascontiguousarray(np.asarray(a)) for a in (x.data, x.indices, x.indptr)]
    return (x.format, *x.shape, x.data.dtype.name, *parts)


def _refuse_duplicates(name: str, x: Any) -> None:
    """DataError for a sparse matrix with an index twice in a row or column, which readers understand differently."""
    if not hasattr(x, "indptr") or x.has_canonical_format:
        return
    n_minor = x.shape[1 if x.format == "csr" else 0]
    first, n_major = 0, len(x.indptr) - 1
    if x.indices.size and not 0 <= x.indices.min() <= x.indices.max() < n_minor:
        return  # the writer says so
    while first < n_major:  # rows of graphs come nearest first: sorted a few rows at a time, elsewhere
        begin = int(x.indptr[first])
        last = max(first + 1, int(np.searchsorted(x.indptr, begin + _SORTED_AT_ONCE, "right")) - 1)
        lengths = np.diff(x.indptr[first : last + 1])
        keys = np.repeat(np.arange(last - first, dtype=np.int64) * n_minor, lengths)
        keys += x.indices[begin : int(x.indptr[last])]
        keys.sort()
        twice = np.flatnonzero(keys[1:] == keys[:-1])
        if twice.size:
            row, index = divmod(int(keys[twice[0]]), n_minor)
            raise _core.DataError(
                f"write: {name}: duplicate index {index} in {'row' if x.format == 'csr' else 'column'} {first + row} "
                "(add them up first: sum_duplicates())"
            )
        first = last


def _is_number(dtype: np.dtype[Any]) -> bool:
    return dtype.isnative and (dtype.kind in "iub" or dtype.name in ("float16", "float32", "float64"))
