from collections.abc import Sequence
from typing import Any

import scwarp._core as _core

def gather_names(ctx: _core.Context, names: list, order: object, out: int, n: int) -> None:
    """
    out[k, t] = names[order[t, k]] for k < n: `out` is the address of n x len(order) objects, or of nothing yet.
    """

def gather_ranked(ctx: _core.Context, values: object, order: object, n: int, single: bool) -> Any:
    """
    out[k, t] = values[t, order[t, k]] for k < n, as float32 or float64; all on the host.
    """

def leiden(
    ctx: _core.Context,
    graph: object,
    resolutions: Sequence[float],
    n_iterations: int,
    use_weights: bool,
    theta: float,
    n_starts: int,
) -> list[Any]:
    """
    One (labels, modularity, cluster_sizes, n_iterations, converged) per resolution.
    """

def modularity(ctx: _core.Context, graph: object, labels: object, resolution: float, use_weights: bool) -> float:
    """Modularity of a clustering."""

def logistic_regression(
    ctx: _core.Context,
    x: object,
    codes: object,
    n_classes: int,
    c: float,
    tol: float,
    max_iter: int,
    fit_intercept: bool,
) -> tuple[Any, ...]:
    """
    Returns (coefficients, intercepts, n_iterations, max_gradient, converged).
    """

def rank_genes_groups(
    ctx: _core.Context,
    x: object,
    codes: object,
    n_groups: int,
    *,
    method: str,
    reference: int | None,
    corr_method: str,
    rankby_abs: bool,
    pts: bool,
    mean_in_log_space: bool,
    log_base: float | None,
    tie_correct: bool,
    use_continuity: bool,
    return_u_values: bool,
    n_bins: int,
    bin_range: tuple[float, float] | None,
) -> dict:
    """Returns arrays of tested groups x genes."""

def nan_mean_of_genes(ctx: _core.Context, x: object) -> Any:
    """Mean of each column over the rows where it is not NaN."""

def score_genes(ctx: _core.Context, x: object, genes: Sequence[int], control: Sequence[int]) -> Any:
    """
    Mean over the columns `genes` minus mean over the columns `control`, per row.
    """

def umap(
    ctx: _core.Context,
    graph: object,
    min_dist: float,
    spread: float,
    n_components: int,
    maxiter: int | None,
    alpha: float,
    gamma: float,
    negative_sample_rate: int,
    init: object,
    a: float | None,
    b: float | None,
) -> tuple[Any, ...]:
    """(embedding, a, b, n_epochs, symmetric)"""
