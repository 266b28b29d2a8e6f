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
    compression: str,
    compression_level: int,
    chunk_bytes: int,
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
) -> None: ...
def read_h5ad_matrix(
    ctx: _core.Context,
    path: str,
    element: str = "X",
    check_counts: bool = False,
    obs_mask: object | None = None,
    var_mask: object | None = None,
) -> Any: ...
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
def read_10x_h5(ctx: _core.Context, path: str, genome: str, gex_only: bool) -> tuple[Any, ...]: ...
def read_10x_mtx(
    ctx: _core.Context, folder: str, gene_symbols: bool, gex_only: bool, prefix: str
) -> tuple[Any, ...]: ...
def read_text(ctx: _core.Context, path: str, delimiter: str, rows: str) -> tuple[Any, ...]: ...
