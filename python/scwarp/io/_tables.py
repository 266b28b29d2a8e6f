from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from .. import _core
from .._context import device_context, make_context
from ._anndata import matrix_from
from ._h5ad import _refuse_duplicates, _stream

if TYPE_CHECKING:
    from anndata import AnnData


def _anndata(parts: Any) -> AnnData:
    import pandas as pd
    from anndata import AnnData

    matrix, obs_names, var_names, *columns = parts
    obs, var = (
        pd.DataFrame(dict(c), index=pd.Index(names, dtype=object))
        for c, names in zip(columns, (obs_names, var_names), strict=True)
    )
    return AnnData(matrix_from(matrix), obs=obs, var=var)


def _context(op: str, device: str | None) -> _core.Context:
    return make_context(op=op, device="cpu") if device in (None, "cpu") else device_context(op, str(device))


def _booleans(op: str, mask: Any, name: str) -> Any:
    if mask is None:
        return None
    mask = np.asarray(mask)
    if mask.dtype != bool or mask.ndim != 1:
        raise TypeError(f"{op}: {name} must be one boolean each (got {mask.dtype}, {mask.ndim} dimensions)")
    return mask.astype(np.uint8)


def read_10x_h5(
    filename: str | os.PathLike[str],
    *,
    genome: str | None = None,
    gex_only: bool = True,
    obs_mask: Any = None,
    var_mask: Any = None,
    device: str | None = None,
) -> AnnData:
    """Read 10x Genomics HDF5, version 2 or 3.

    Parameters
    ----------
    filename
        The file.
    genome
        Keep the features of this genome; needed for a version 2 file with several.
    gex_only
        Keep features of type "Gene Expression" (version 3).
    obs_mask, var_mask
        Which cells, and which of the features that ``genome`` and ``gex_only`` leave: booleans. The values of others
        are never kept in memory.
    device
        ``"cuda"`` (``"cuda:1"``): ``X`` becomes a CuPy matrix. ``None`` and ``"cpu"``: the host.

    Returns
    -------
    Cells x features, float32 CSR; ``var``: symbols as names (not made unique, as in scanpy), ``gene_ids``,
    ``feature_types``, ``genome`` and the other text columns of the file.
    """
    op = "read_10x_h5"
    masks = [_booleans(op, m, name) for m, name in ((obs_mask, "obs_mask"), (var_mask, "var_mask"))]
    ctx = _context(op, device)
    return _anndata(_core.io.read_10x_h5(ctx, os.fspath(filename), genome or "", gex_only, *masks))


def read_10x_mtx(
    path: str | os.PathLike[str],
    *,
    var_names: Literal["gene_symbols", "gene_ids"] = "gene_symbols",
    gex_only: bool = True,
    prefix: str | None = None,
    device: str | None = None,
) -> AnnData:
    """Read a 10x Genomics folder: ``matrix.mtx``, ``barcodes.tsv``, ``genes.tsv`` or ``features.tsv``, plain or gzip.

    scwarp's threads parse the matrix; gzip is unpacked ahead of them, or by them if it is BGZF. Symbols are made unique
    with "-1", "-2".

    Parameters
    ----------
    path
        The folder.
    var_names
        What names the genes; the other one becomes a column of ``var``.
    gex_only
        Keep features of type "Gene Expression" (version 3).
    prefix
        Text before ``matrix.mtx`` and so on in the file names.
    device
        ``"cuda"`` (``"cuda:1"``): ``X`` becomes a CuPy matrix. ``None`` and ``"cpu"``: the host.
    """
    op = "read_10x_mtx"
    if var_names not in ("gene_symbols", "gene_ids"):
        raise ValueError(f"{op}: var_names must be 'gene_symbols' or 'gene_ids' (got {var_names!r})")
    ctx = _context(op, device)
    return _anndata(_core.io.read_10x_mtx(ctx, os.fspath(path), var_names == "gene_symbols", gex_only, prefix or ""))


def write_10x_mtx(
    adata: AnnData,
    path: str | os.PathLike[str],
    *,
    version: Literal[2, 3] = 3,
    compression_level: int | None = None,
) -> None:
    """Write ``X`` as a 10x Genomics folder, which :func:`read_10x_mtx` and scanpy's reader take.

    The folder is complete or not there: it takes its place once all of it is on disk. An existing folder is replaced if
    it is empty or holds nothing but such files. What a folder has no place for is left out.

    Parameters
    ----------
    adata
        What to write. Genes are ``var["gene_ids"]`` (else the names), ``var["gene_symbols"]`` (else the names; where
        there are symbols the names are the ids) and ``var["feature_types"]`` (else "Gene Expression").
    path
        The folder.
    version
        3: ``matrix.mtx.gz``, ``features.tsv.gz``, ``barcodes.tsv.gz``; 2: ``matrix.mtx``, ``genes.tsv``,
        ``barcodes.tsv``.
    compression_level
        1 to 12, default 4. The files are gzip in members of 64 KiB (BGZF), which scwarp unpacks on all threads.
    """
    op = "write_10x_mtx"
    x = _matrix_of(op, adata)
    kept = [c for c in ("gene_ids", "gene_symbols", "feature_types") if c in adata.var]
    _core.io.write_10x_mtx(
        make_context(op=op),
        x,
        [str(n) for n in adata.obs_names],
        [str(n) for n in adata.var_names],
        [(c, [str(v) for v in adata.var[c]]) for c in kept],
        os.fspath(path),
        version,
        4 if compression_level is None else compression_level,
    )


def write_10x_h5(
    adata: AnnData,
    filename: str | os.PathLike[str],
    *,
    compression_level: int | None = None,
    chunk_bytes: int | None = None,
) -> None:
    """Write ``X`` as 10x Genomics HDF5 of version 3, which :func:`read_10x_h5` and scanpy's reader take.

    Values are stored as int32 if they are integers up to 2^24 (which readers turn into float32), as int64 if they are
    integers, else as float32 or float64, whichever ``X`` has; that takes a look through them first. CSC matrices are
    turned in memory. The file is complete or not there; what it replaces stays until then. What it has no place for is
    left out.

    Parameters
    ----------
    adata
        What to write. Genes are ``var["gene_ids"]`` (else the names), ``var["gene_symbols"]`` (else the names; where
        there are symbols the names are the ids), ``var["feature_types"]`` (else "Gene Expression") and
        ``var["genome"]`` (else ""). Other columns of ``var`` with text or booleans alone are written by their names, as
        :func:`read_10x_h5` gives them. Names that are not ASCII are UTF-8, which scanpy's reader refuses.
    filename
        The file.
    compression_level
        gzip 1 to 12, default 4; 0: not compressed.
    chunk_bytes
        Size of a chunk before compression, default 512 KiB.
    """
    op = "write_10x_h5"
    if chunk_bytes is not None and chunk_bytes <= 0:
        raise ValueError(f"{op}: chunk_bytes must be positive (got {chunk_bytes!r})")
    x = _matrix_of(op, adata)
    named = ("gene_ids", "gene_symbols", "feature_types", "genome", "probe_ids")
    texts = [str(c) for c in adata.var if c in named or _is_text(adata.var[c])]
    flags = [str(c) for c in adata.var if c not in named and adata.var[c].dtype == bool]
    filtered = "filtered_barcodes" in adata.obs and adata.obs["filtered_barcodes"].dtype == bool
    _core.io.write_10x_h5(
        make_context(op=op),
        x,
        [str(n) for n in adata.obs_names],
        [str(n) for n in adata.var_names],
        [(c, [str(v) for v in adata.var[c]]) for c in texts],
        [(c, adata.var[c].tolist()) for c in flags],
        adata.obs["filtered_barcodes"].tolist() if filtered else [],
        os.fspath(filename),
        4 if compression_level is None else compression_level,
        chunk_bytes or 0,
    )


def _matrix_of(op: str, adata: AnnData) -> tuple[Any, ...]:
    x = _stream(adata.X)
    if x is None:
        raise TypeError(f"{op}: X must be a dense, CSR or CSC matrix of numbers (got {type(adata.X).__name__})")
    _refuse_duplicates("X", adata.X)
    return x


def _is_text(column: Any) -> bool:
    """Whether every value is a str."""
    return all(isinstance(v, str) for v in (column.cat.categories if column.dtype == "category" else column)) and (
        len(column) > 0 and not column.isna().any()
    )


def read_csv(
    filename: str | os.PathLike[str],
    *,
    delimiter: str | None = None,
    rows: Literal["auto", "cells", "genes"] = "auto",
) -> AnnData:
    """Read a table of numbers with names in the first row and column, plain or gzip.

    Parameters
    ----------
    filename
        The file.
    delimiter
        One character; ``None``: tab, comma or semicolon, whichever the first line has.
    rows
        What the rows are; ``"auto"``: the axis with more names like MT-ND1 or ENSG00000198888 is the genes, else rows
        are cells.
    """
    op = "read_csv"
    if rows not in ("auto", "cells", "genes"):
        raise ValueError(f"{op}: rows must be 'auto', 'cells' or 'genes' (got {rows!r})")
    if delimiter is not None and len(delimiter) != 1:
        raise ValueError(f"{op}: delimiter must be one character (got {delimiter!r})")
    return _anndata(_core.io.read_text(make_context(op=op), os.fspath(filename), delimiter or "", rows))
