from collections.abc import Sequence
from typing import Any

import scwarp._core as _core

def convert(
    ctx: _core.Context,
    source: str,
    target: str,
    genome: str,
    gex_only: bool,
    overwrite: bool,
    csr: bool,
    compression: str,
    compression_level: int,
    chunk_bytes: int,
    zarr_format: int,
    shards: bool,
) -> None: ...
def concat(
    ctx: _core.Context,
    inputs: Sequence[str],
    target: str,
    outer: bool,
    label: str,
    keys: Sequence[str],
    index_unique: str | None,
    merge: str,
    uns_merge: str,
    fill_value: float | None,
    overwrite: bool,
    compression: str,
    compression_level: int,
    chunk_bytes: int,
    zarr_format: int,
    shards: bool,
) -> None: ...

class FileMatrix:
    """A matrix that stays in its file."""

    @property
    def path(self) -> str: ...
    @property
    def element(self) -> str: ...
    @property
    def shape(self) -> tuple[Any, ...]: ...
    @property
    def n_entries(self) -> int: ...
    @property
    def is_sparse(self) -> bool: ...
    @property
    def dtype(self) -> str: ...
    def row_lengths(self) -> Any: ...
    @property
    def passes(self) -> tuple[Any, ...]: ...
    def fits_float(self, ctx: _core.Context) -> bool: ...

def open_matrix(ctx: _core.Context, path: str, element: str = "X") -> FileMatrix: ...

class RowSource:
    """
    Cells x genes in blocks of rows: an argument in place of a packed matrix.
    """

    @property
    def shape(self) -> tuple[Any, ...]: ...
    @property
    def is_sparse(self) -> bool: ...

def row_source(file: FileMatrix, rows: object | None, as_double: bool, steps: Sequence[tuple]) -> RowSource: ...
def visit_rows(ctx: _core.Context, source: RowSource, values_only: bool = False) -> int:
    """
    One pass that does nothing with the blocks, and their number: what a pass takes at least.
    """

def load_rows(ctx: _core.Context, source: RowSource) -> Any:
    """All rows in memory: (indptr, indices, data) or an array."""

def read_h5ad_matrix(
    ctx: _core.Context,
    path: str,
    element: str = "X",
    check_counts: bool = False,
    obs_mask: object | None = None,
    var_mask: object | None = None,
) -> Any: ...
def read_h5ad_texts(ctx: _core.Context, path: str, element: str) -> list[Any]: ...
def copy_h5ad(
    ctx: _core.Context, source: str, target: str, compression_level: int = -1, check_counts: bool = False
) -> None: ...
def write_h5ad(
    ctx: _core.Context,
    image: bytes,
    target: str,
    matrices: Sequence[tuple[str, tuple]],
    compression: str = "gzip",
    compression_level: int = -1,
    chunk_bytes: int = 524288,
) -> None: ...
def read_10x_h5(
    ctx: _core.Context,
    path: str,
    genome: str,
    gex_only: bool,
    obs_mask: object | None = None,
    var_mask: object | None = None,
) -> tuple[Any, ...]: ...
def read_10x_mtx(
    ctx: _core.Context, folder: str, gene_symbols: bool, gex_only: bool, prefix: str
) -> tuple[Any, ...]: ...
def write_10x_mtx(
    ctx: _core.Context,
    x: tuple,
    cells: Sequence[str],
    genes: Sequence[str],
    columns: Sequence[tuple[str, Sequence[str]]],
    folder: str,
    version: int,
    compression_level: int,
) -> None: ...
def write_10x_h5(
    ctx: _core.Context,
    x: tuple,
    cells: Sequence[str],
    genes: Sequence[str],
    texts: Sequence[tuple[str, Sequence[str]]],
    flags: Sequence[tuple[str, Sequence[bool]]],
    filtered: Sequence[bool],
    path: str,
    compression_level: int,
    chunk_bytes: int,
) -> None: ...
def read_text(ctx: _core.Context, path: str, delimiter: str, rows: str) -> tuple[Any, ...]: ...
def read_zarr_matrix(
    ctx: _core.Context,
    path: str,
    element: str = "X",
    check_counts: bool = False,
    obs_mask: object | None = None,
    var_mask: object | None = None,
) -> Any: ...
def is_zarr(path: str) -> bool: ...
def write_zarr(
    ctx: _core.Context,
    image: bytes,
    target: str,
    matrices: Sequence[tuple[str, tuple]],
    format: int,
    compression: str,
    compression_level: int,
    shards: bool,
) -> None: ...
def copy_file(
    ctx: _core.Context,
    source: str,
    target: str,
    format: int = 2,
    compression: str = "lz4",
    compression_level: int = -1,
    shards: bool = False,
) -> None: ...
