from collections.abc import Sequence
from typing import Any

import scwarp._core as _core

def aggregate(ctx: _core.Context, x: object, codes: object, n_groups: int, functions: Sequence[str], dof: int) -> dict:
    """Returns {function: groups x columns}."""

def copy(ctx: _core.Context, dst: int, src: int, bytes: int, to_device: bool) -> None:
    """
    Copies between a host and a device address on the context's stream; the host side may be reused afterwards.
    """

def empty(bytes: int, item_bytes: int) -> Any:
    """
    Untouched host memory in large pages, as an array of unsigned integers.
    """

def host_copy(ctx: _core.Context, device: int, bytes: int, owner: object) -> Any:
    """
    A host copy (uint8) of device memory that `owner` keeps; the memory stays known as its device copy.
    """
