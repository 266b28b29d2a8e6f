from collections.abc import Sequence
from typing import Any

import scwarp._core as _core

def read_h5ad_matrix(ctx: _core.Context, path: str, element: str = "X", check_counts: bool = False) -> Any: ...
def copy_h5ad(
    ctx: _core.Context,
    source: str,
    target: str,
    compression_level: int = 1,
    check_counts: bool = False,
    matrices: Sequence[tuple[str, object]] = [],
) -> None: ...
