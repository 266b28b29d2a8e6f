from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from typing import Literal

from .. import _core
from .._context import make_context

Merge = Literal["same", "unique", "first", "only"] | None
Compression = Literal["auto", "gzip", "zstd", "lz4", "blosc-zstd"] | None


def convert(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    overwrite: bool = False,
    compression: Compression = "auto",
    compression_level: int | None = None,
    chunk_bytes: int | None = None,
    zarr_format: Literal[2, 3] | None = None,
    shards: bool = False,
    genome: str | None = None,
    gex_only: bool = True,
    csr: bool = False,
) -> None:
    """Write what is in a file in another format, from file to file: the matrices are never in memory.

    h5ad and Zarr get everything; CSR, CSC and dense matrices keep layout and type. What only one of the formats has a
    form for is left out of the other with a warning that names it, as is what 10x files have no place for. The
    values of a folder with ``matrix.mtx`` go through a temporary file of 8 bytes each (12 if they are double) where
    ``TMPDIR`` says; tables of text are read whole, and CSC that becomes 10x HDF5. The output is complete or not there;
    what it replaces stays until then.

    Parameters
    ----------
    source
        h5ad, Zarr (version 2 or 3, with shards too), 10x HDF5, a folder with ``matrix.mtx``, a table; told by content.
    target
        The file to write, ending in ``.h5ad``, ``.zarr``, ``.h5`` (10x HDF5) or ``/`` (a 10x folder).
    overwrite
        Replace ``target`` if it is there; else that is an error.
    compression, compression_level
        As :func:`write_h5ad` and :func:`write_zarr` have them; ``"auto"``: gzip, for Zarr lz4.
    chunk_bytes
        Size of a chunk before compression; by default 512 KiB for HDF5, 4 MiB for Zarr (1 MiB within shards).
    zarr_format, shards
        Zarr only, see :func:`write_zarr`; by default version 2, with shards 3.
    genome, gex_only
        10x files: see :func:`read_10x_h5`.
    csr
        ``X``, ``layers`` and ``raw.X`` that are CSC become CSR, which ``backed="r"`` reads; each is in memory while it
        is written.
    """
    _core.io.convert(
        make_context(op="convert"),
        os.fspath(source),
        os.fspath(target),
        genome or "",
        gex_only,
        overwrite,
        csr,
        *_writing("convert", compression, compression_level, chunk_bytes, zarr_format, shards),
    )


def concat_on_disk(
    in_files: Collection[str | os.PathLike[str]] | Mapping[str, str | os.PathLike[str]],
    out_file: str | os.PathLike[str],
    *,
    overwrite: bool = False,
    join: Literal["inner", "outer"] = "inner",
    merge: Merge = None,
    uns_merge: Merge = None,
    label: str | None = None,
    keys: Collection[str] | None = None,
    index_unique: str | None = None,
    fill_value: float | None = None,
    compression: Compression = "auto",
    compression_level: int | None = None,
    chunk_bytes: int | None = None,
    zarr_format: Literal[2, 3] | None = None,
    shards: bool = False,
) -> None:
    """Put the cells of several files into one, as :func:`anndata.concat` would, without holding the matrices in memory.

    The parameters are those of :func:`anndata.experimental.concat_on_disk` along ``obs``. obsp, varp and varm are left
    out.

    Parameters
    ----------
    in_files
        The files, in any format that :func:`convert` reads, or a mapping from keys to files.
    out_file
        The file to write, ending in ``.h5ad``, ``.zarr``, ``.h5`` (10x HDF5) or ``/`` (a 10x folder).
    overwrite
        Replace ``out_file`` if it is there; else that is an error.
    join
        Genes, columns of ``obs``, layers and obsm that all inputs have, or all of any.
    merge, uns_merge
        Which columns of ``var``, and what of ``uns``, is kept: what is the same in all inputs, has only one content, is
        in the first input that has it, or in one input only; ``None``: nothing.
    label, keys
        Column of ``obs`` with the key of the input that a cell is from; keys are "0", "1", ... by default.
    index_unique
        Text between a cell's name and its input's key; ``None``: names stay.
    fill_value
        For what an input does not have: by default 0 in sparse matrices (which take no other) and NaN elsewhere.
        Integers become a type that holds it.
    compression, compression_level
        As :func:`write_h5ad` and :func:`write_zarr` have them; ``"auto"``: gzip, for Zarr lz4.
    chunk_bytes
        Size of a chunk before compression; by default 512 KiB for HDF5, 4 MiB for Zarr (1 MiB within shards).
    zarr_format, shards
        Zarr only, see :func:`write_zarr`; by default version 2, with shards 3.
    """
    op = "concat_on_disk"
    if isinstance(in_files, Mapping):
        if keys is not None:
            raise TypeError(f"{op}: keys are given twice, by in_files and by keys")
        keys, in_files = list(in_files), list(in_files.values())
    if join not in ("inner", "outer"):
        raise ValueError(f"{op}: join must be 'inner' or 'outer' (got {join!r})")
    for name, value in (("merge", merge), ("uns_merge", uns_merge)):
        if value not in ("same", "unique", "first", "only", None):
            raise ValueError(f"{op}: {name} must be 'same', 'unique', 'first', 'only' or None (got {value!r})")
    if isinstance(in_files, str | bytes | os.PathLike):
        raise TypeError(f"{op}: in_files must be a list of files or a mapping (got the one file {in_files!r})")
    _core.io.concat(
        make_context(op=op),
        [os.fspath(f) for f in in_files],
        os.fspath(out_file),
        join == "outer",
        label or "",
        [str(k) for k in keys] if keys is not None else [],
        index_unique,
        merge or "none",
        uns_merge or "none",
        fill_value,
        overwrite,
        *_writing(op, compression, compression_level, chunk_bytes, zarr_format, shards),
    )


def _writing(
    op: str,
    compression: Compression,
    level: int | None,
    chunk_bytes: int | None,
    zarr_format: int | None,
    shards: bool,
) -> tuple[str, int, int, int, bool]:
    if zarr_format not in (2, 3, None):
        raise ValueError(f"{op}: zarr_format must be 2 or 3 (got {zarr_format!r})")
    if chunk_bytes is not None and chunk_bytes <= 0:
        raise ValueError(f"{op}: chunk_bytes must be positive (got {chunk_bytes!r})")
    return compression or "none", -1 if level is None else level, chunk_bytes or 0, zarr_format or 0, shards
