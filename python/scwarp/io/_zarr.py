from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Literal

from .. import _core
from .._context import make_context
from .._settings import logger
from ._h5ad import _MATRICES, _light, _matrix

if TYPE_CHECKING:
    from anndata import AnnData


def read_zarr(store: str | os.PathLike[str], *, check_counts: bool = False) -> AnnData:
    """Read a Zarr store (a folder, version 2 or 3) into an AnnData in memory.

    ``X`` and ``layers`` are read by scwarp, whose threads unpack the chunks; the rest by anndata. Indices are checked.

    Parameters
    ----------
    store
        The folder.
    check_counts
        Refuse NaN, infinite and negative values in ``X``: :class:`scwarp.DataError` names the first cell and gene.
    """
    import anndata
    import zarr

    path = os.fspath(store)
    ctx = make_context(op="read_zarr")
    if not os.path.isdir(path):
        raise FileNotFoundError(f"read_zarr: '{path}' is not a folder")
    f: Any = zarr.open_group(path, mode="r")
    known = f.attrs.get("encoding-type") == "anndata"
    layers = list(f["layers"]) if "layers" in f else []
    names = [
        name
        for name in ("X", *(f"layers/{k}" for k in layers))
        if known and name in f and f[name].attrs.get("encoding-type") in _MATRICES
    ]
    if not known or not names:
        adata = anndata.read_zarr(path)
        if check_counts and adata.X is not None:
            _core.io.read_zarr_matrix(ctx, path, "X", True)
        return adata
    ours = {name: _matrix(_core.io.read_zarr_matrix(ctx, path, name, check_counts and name == "X")) for name in names}
    if check_counts and "X" in f and "X" not in ours:
        _core.io.read_zarr_matrix(ctx, path, "X", True)
    read = anndata.io.read_elem if hasattr(anndata, "io") else anndata.experimental.read_elem
    parts: dict[str, Any] = {
        slot: read(f[slot]) for slot in ("obs", "var", "obsm", "varm", "obsp", "varp", "uns") if slot in f
    }
    parts["layers"] = {k: ours[n] if (n := f"layers/{k}") in ours else read(f[n]) for k in layers}
    parts["X"] = ours["X"] if "X" in ours else read(f["X"]) if "X" in f else None
    if "raw" in f:
        parts["raw"] = {k: read(f[f"raw/{k}"]) for k in ("X", "var", "varm") if k in f["raw"]}
    return anndata.AnnData(**parts)


def write_zarr(
    adata: AnnData,
    store: str | os.PathLike[str],
    *,
    zarr_format: Literal[2, 3] = 2,
    compression: Literal["lz4", "blosc-zstd", "zstd", "gzip"] | None = "lz4",
    compression_level: int | None = None,
    shards: bool = False,
    device: str | None = None,
) -> None:
    """Write an AnnData to a Zarr store (a folder) that anndata reads.

    The store is complete or not there: it is written beside its place, flushed to disk, and exchanged with what was
    there. A folder that is no Zarr store is not replaced. ``adata`` is left as it is. ``None`` values of ``uns`` are
    left out: anndata before 0.12 cannot read them.

    Parameters
    ----------
    adata
        What to write.
    store
        The folder; a store that is there is replaced.
    zarr_format
        2, as anndata 0.12 writes by default (read by zarr-python 2 and 3), or 3 (read by zarr-python 3).
    compression
        ``"lz4"``: Blosc with LZ4 and shuffled bytes, zarr-python 2's default. ``"blosc-zstd"``: Blosc with Zstandard,
        smaller. ``"zstd"``: zarr-python 3's default. ``"gzip"``. ``None``: none. scwarp's threads compress; the bytes
        do not depend on their number.
    compression_level
        Blosc 0 to 9 (default 5), zstd 0 to 22 (3), gzip 1 to 9 (1).
    shards
        Version 3 only: many chunks in each file of about 32 MiB, so that a large store has few files.
    """
    op = "write_zarr"
    if compression not in ("lz4", "blosc-zstd", "zstd", "gzip", None):
        raise ValueError(f"{op}: compression must be 'lz4', 'blosc-zstd', 'zstd', 'gzip' or None (got {compression!r})")
    ctx = make_context(op=op, device=device)
    image, streams = _light(adata)
    _core.io.write_zarr(
        ctx,
        image,
        os.fspath(store),
        streams,
        zarr_format,
        compression or "none",
        -1 if compression_level is None else compression_level,
        shards,
    )
    logger.debug("%s: %s", op, store)
