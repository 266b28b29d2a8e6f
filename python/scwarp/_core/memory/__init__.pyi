from typing import Any

def estimate(
    op: str,
    device: str,
    n_threads: int,
    n_rows: int,
    n_cols: int,
    nnz: int,
    value_bytes: int,
    sparse: bool,
    options: dict,
    in_file: bool = False,
    block_bytes: int = 0,
    limit_bytes: int = 0,
) -> tuple[int, int]:
    """(peak, kept) bytes of an operation beyond its arguments."""

def info(device: str) -> dict: ...
def set_limit(device: str, limit_bytes: int) -> None: ...
def use_driver(device: str, pool_bytes: int, managed: bool) -> None: ...
def use_functions(device: str, allocate: object, deallocate: object) -> None:
    """
    allocate(bytes, stream) -> address and deallocate(address, bytes, stream).
    """

def allocate(device: str, bytes: int, stream: int, tag: str) -> int: ...
def deallocate(device: str, address: int, bytes: int, stream: int) -> None: ...
def release(device: str) -> None:
    """Empties the cache and gives unused memory back to the driver."""

def plan(
    n_obs: int, n_vars: int, nnz: int, value_bytes: int, sparse: bool, n_threads: int, device: str, limit_bytes: int = 0
) -> list[Any]:
    """
    [(step, bytes held before, bytes at the peak)] of the main job with default options.
    """
