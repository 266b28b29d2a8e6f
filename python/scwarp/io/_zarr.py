from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Literal

from .. import _core
from .._context import make_context
from .._settings import logger
from ._anndata import ZARR, read_anndata
from ._h5ad import _light

if TYPE_CHECKING:
    from anndata import AnnData


def read_zarr(
    store: str | os.PathLike[str],
    backed: str | bool | None = None,
    *,
    check_counts: bool = False,
    obs_mask: Any = None,
    var_mask: Any = None,
    device: str | None = None,
    layers_on_device: bool = False,
) -> AnnData:
    """Read a Zarr store (a folder, version 2 or 3, also with shards) into an AnnData.

    ``X`` and ``layers`` are read by scwarp, whose threads unpack the chunks; the rest by anndata. Indices are checked.

    Parameters
    ----------
    store
        The folder.
    backed
        ``"r"``: ``X``, ``layers`` and ``raw.X`` stay in the store, as in :func:`read_h5ad`. The store must stay where
        and what it is.
    check_counts
        Refuse NaN, infinite and negative values in ``X``: :class:`scwarp.DataError` names the first cell and gene.
    obs_mask, var_mask
        Which cells and genes to read: booleans, or positions that rise. The result is that of
        ``read_zarr(store)[obs_mask, var_mask].copy()``; of ``X``, ``layers`` and ``raw.X`` only chunks with selected
        cells are read, and only selected values are kept.
    device
        ``"cuda"`` (``"cuda:1"``): ``X`` becomes a CuPy matrix, CSR if it is sparse. ``None`` and ``"cpu"``: the host.
    layers_on_device
        The same for ``layers``; else they stay on the host.
    """
    return read_anndata(
        ZARR,
        os.fspath(store),
        backed,
        check_counts=check_counts,
        obs_mask=obs_mask,
        var_mask=var_mask,
        device=device,
        layers_on_device=layers_on_device,
    )


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
    device
        Packing is the CPU's work, whatever the device; matrices on a GPU are copied to the host for it.
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
