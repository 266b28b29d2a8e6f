from collections.abc import Sequence
from typing import Any

import scwarp._core as _core

def leiden(
    ctx: _core.Context, graph: object, resolutions: Sequence[float], n_iterations: int, use_weights: bool, theta: float
) -> list[Any]:
    """
    One (labels, modularity, cluster_sizes, n_iterations, converged) per resolution.
    """

def modularity(ctx: _core.Context, graph: object, labels: object, resolution: float, use_weights: bool) -> float:
    """Modularity of a clustering."""
