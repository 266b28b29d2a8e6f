from collections.abc import Sequence

import scwarp._core as _core

def aggregate(ctx: _core.Context, x: object, codes: object, n_groups: int, functions: Sequence[str], dof: int) -> dict:
    """Returns {function: groups x columns}."""
