from __future__ import annotations

import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from .. import _core
from .._context import device_context, is_cupy, make_context
from .._on_disk import open_matrix
from .._settings import logger

if TYPE_CHECKING:
    from anndata import AnnData

_MATRICES = ("csr_matrix", "array")
_CHUNK_BYTES = 512 << 10


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
        never changed, and must stay where it is. Needs anndata 0.10, and matrices that are dense or CSR.
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
    import h5py

    path = os.fspath(filename)
    if backed:
        if check_counts or device is not None or layers_on_device:
            raise ValueError("read_h5ad: backed reads no values: check_counts and device do not go with it")
        if obs_mask is not None or var_mask is not None:
            raise ValueError("read_h5ad: backed loads nothing: subset the result instead of obs_mask and var_mask")
        return _read_backed(path, backed)
    ctx = make_context(op="read_h5ad", device="cpu")
    on_device = None if device in (None, "cpu") else device_context("read_h5ad", str(device))
    with h5py.File(path, "r") as f:
        known = f.attrs.get("encoding-type") == "anndata" and isinstance(f.get("obs"), h5py.Group)
        elements = ["X", *(f"layers/{k}" for k in f.get("layers", ()))] if known else []
        selected = obs_mask is not None or var_mask is not None
        if selected and isinstance(f.get("raw"), h5py.Group):
            elements.append("raw/X")
        encodings = {k: f[k].attrs.get("encoding-type") for k in elements if k in f}
        if selected and not known:
            raise NotImplementedError(f"read_h5ad: {path!r} has an old layout: read all of it and subset that")
        masks: list[Any] = [
            None if mask is None else _mask(mask, f[axis], name)
            for mask, axis, name in ((obs_mask, "obs", "obs_mask"), (var_mask, "var", "var_mask"))
            if selected
        ]

    def target(name: str) -> Any:
        return on_device if name == "X" or layers_on_device else None

    # CSC stays CSC on the host, which anndata reads.
    kinds = (*_MATRICES, "csc_matrix") if selected else _MATRICES
    ours = [k for k, e in encodings.items() if e in kinds or (e == "csc_matrix" and target(k) is not None)]
    if not ours and not selected:
        adata = _read_by_anndata(path)
        if check_counts and adata.X is not None:
            _core.io.read_h5ad_matrix(ctx, path, "X", True)
        if on_device is not None and adata.X is not None:
            adata.X = _to_device(adata.X)
        return adata
    # anndata works in a thread of its own, so that Ctrl-C stops ours.
    with ThreadPoolExecutor(1) as pool:
        rest = pool.submit(_read_rest, path, set(ours))
        read = {}
        for name in ours:
            where = ctx if target(name) is None else target(name)
            pick = masks if name != "raw/X" else masks[:1]  # genes of raw are its own
            x = _matrix(_core.io.read_h5ad_matrix(where, path, name, check_counts and name == "X", *pick))
            read[name] = x.tocsc() if encodings[name] == "csc_matrix" and target(name) is None else x
        if check_counts and "X" in encodings and "X" not in read:
            _core.io.read_h5ad_matrix(ctx, path, "X", True)
        parts = rest.result()
    if selected:
        parts = _subset(parts, masks)
    parts["X"] = read.get("X", parts["X"])
    if "raw/X" in read:
        parts["raw"]["X"] = read["raw/X"]
    parts["layers"] = {k: read.get(f"layers/{k}", v) for k, v in parts["layers"].items()}
    import anndata

    return anndata.AnnData(**parts)


def _mask(mask: Any, frame: Any, name: str) -> Any:
    """One byte per cell or gene."""
    index = frame[frame.attrs.get("_index", "_index")]
    n = index.shape[0]
    mask = np.asarray(mask)
    if mask.dtype == bool:
        if mask.shape != (n,):
            raise ValueError(f"read_h5ad: {name} has shape {mask.shape} (expected {(n,)})")
        return mask.astype(np.uint8)
    if mask.ndim != 1 or (mask.size and mask.dtype.kind not in "iu"):
        raise TypeError(f"read_h5ad: {name} must be booleans or positions (got {mask.dtype}, {mask.ndim} dimensions)")
    if mask.size and (mask[0] < 0 or mask[-1] >= n or (np.diff(mask) <= 0).any()):
        raise ValueError(f"read_h5ad: positions of {name} must rise, from 0 to {n - 1} at most")
    out = np.zeros(n, np.uint8)
    out[mask.astype(np.int64)] = 1
    return out


def _subset(parts: dict[str, Any], masks: list[Any]) -> dict[str, Any]:
    """What AnnData() takes of selected cells and genes; matrices that are read elsewhere stay None."""
    import anndata

    layers, raw = parts.pop("layers"), parts.pop("raw", None)
    whole = anndata.AnnData(**parts, layers={k: v for k, v in layers.items() if v is not None})
    obs, var = (slice(None) if m is None else m.view(bool) for m in masks)
    some = whole[obs, var].copy()
    out: dict[str, Any] = {"X": some.X, "obs": some.obs, "var": some.var, "uns": some.uns}
    for slot in ("obsm", "varm", "obsp", "varp"):
        out[slot] = dict(getattr(some, slot))
    out["layers"] = {k: None if v is None else some.layers[k] for k, v in layers.items()}
    if raw is not None:
        x = raw["X"]
        out["raw"] = {**raw, "X": None if x is None else x[obs]}
    return out


def _read_by_anndata(path: str) -> AnnData:
    """Old layouts."""
    import anndata

    return anndata.read_h5ad(path)


def _read_rest(path: str, without: set[str]) -> dict[str, Any]:
    """What AnnData() takes, by anndata; None for the elements of ``without``."""
    import anndata
    import h5py

    read = anndata.io.read_elem if hasattr(anndata, "io") else anndata.experimental.read_elem
    parts: dict[str, Any] = {"X": None, "layers": {}}
    with h5py.File(path, "r") as f:
        for slot in ("obs", "var", "obsm", "varm", "obsp", "varp", "uns"):
            if slot in f:
                parts[slot] = read(f[slot])
        for key in f.get("layers", ()):
            parts["layers"][key] = None if f"layers/{key}" in without else read(f[f"layers/{key}"])
        if "X" in f and "X" not in without:
            parts["X"] = read(f["X"])
        if isinstance(f.get("raw"), h5py.Group):
            parts["raw"] = {
                k: None if f"raw/{k}" in without else read(f[f"raw/{k}"]) for k in ("X", "var", "varm") if k in f["raw"]
            }
    return parts


def _to_device(x: Any) -> Any:
    import cupy
    import scipy.sparse as sp

    if sp.issparse(x):
        from cupyx.scipy.sparse import csr_matrix

        return csr_matrix(x.tocsr())
    return cupy.asarray(x)


def _read_backed(path: str, backed: str | bool) -> AnnData:
    import anndata
    import h5py

    if backed not in ("r", True):
        raise ValueError(f"read_h5ad: backed={backed!r}; expected 'r' (scwarp never writes into an open file)")
    read = anndata.io.read_elem if hasattr(anndata, "io") else anndata.experimental.read_elem
    with h5py.File(path, "r") as f:
        if f.attrs.get("encoding-type") != "anndata" or not isinstance(f.get("obs"), h5py.Group):
            raise NotImplementedError(
                f"read_h5ad: '{path}' was written by anndata before 0.8, which backed does not read: write it anew"
            )
        parts: dict[str, Any] = {
            slot: read(f[slot]) for slot in ("obs", "var", "obsm", "varm", "obsp", "varp", "uns") if slot in f
        }
        parts["X"] = _on_disk(path, f, "X", read)
        parts["layers"] = {k: _on_disk(path, f, f"layers/{k}", read) for k in f.get("layers", ())}
        if "raw" in f:
            parts["raw"] = {k: read(f[f"raw/{k}"]) for k in ("var", "varm") if k in f["raw"]}
            parts["raw"]["X"] = _on_disk(path, f, "raw/X", read)
    return anndata.AnnData(**parts)


def _on_disk(path: str, f: Any, name: str, read: Any) -> Any:
    """A matrix of the file that stays there; other things (none, data frames) are read."""
    if name not in f:
        return None
    if f[name].attrs.get("encoding-type") in (*_MATRICES, "csc_matrix"):
        return open_matrix(path, name)
    return read(f[name])


def _matrix(read: tuple[Any, tuple[int, int], str, str]) -> Any:
    data, shape, _, stored_dtype = read
    values = data[2] if isinstance(data, tuple) else data
    dtype = stored_dtype or values.dtype
    if is_cupy(values):
        if not str(dtype).startswith("float") or str(dtype) == "float16":
            dtype = values.dtype  # CuPy's sparse matrices hold floats
        from cupyx.scipy.sparse import csr_matrix
    else:
        from scipy.sparse import csr_matrix
    values = values.astype(dtype, copy=False)
    if not isinstance(data, tuple):
        return values
    indptr, indices, _ = data
    if len(values) < 2**31:
        indptr = indptr.astype(np.int32)
    else:
        indices = indices.astype(np.int64)
    x = csr_matrix((values, indices, indptr), shape=shape, copy=False)
    x.has_sorted_indices = True
    x.has_canonical_format = True
    return x


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
    ordered = x.copy()  # rows of graphs come nearest first
    ordered.sort_indices()
    major = np.repeat(np.arange(len(x.indptr) - 1), np.diff(ordered.indptr))
    twice = np.flatnonzero((ordered.indices[1:] == ordered.indices[:-1]) & (major[1:] == major[:-1]))
    if twice.size:
        raise _core.DataError(
            f"write: {name}: duplicate index {ordered.indices[twice[0]]} in {'row' if x.format == 'csr' else 'column'} "
            f"{major[twice[0]]} (add them up first: sum_duplicates())"
        )


def _is_number(dtype: np.dtype[Any]) -> bool:
    return dtype.isnative and (dtype.kind in "iub" or dtype.name in ("float16", "float32", "float64"))
