from typing import Any

import scwarp._core as _core

def simulate(
    ctx: _core.Context,
    n_cells: int,
    n_genes: int,
    n_clusters: int,
    n_batches: int,
    doublet_rate: float,
    damaged_rate: float,
    mean_counts: float,
) -> tuple[Any, ...]: ...
