from collections.abc import Sequence
from typing import Any

import scwarp._core as _core

def calculate_qc_metrics(
    ctx: _core.Context, x: object, families: Sequence[object], percent_top: Sequence[int]
) -> tuple[Any, ...]:
    """(n_genes, total, [family totals], [pct_top], n_cells, gene_total)"""

def cell_counts(ctx: _core.Context, x: object) -> tuple[Any, ...]:
    """(total, n_positive) per cell"""

def gene_counts(ctx: _core.Context, x: object) -> tuple[Any, ...]:
    """(total, n_positive) per gene"""

def csr_defects(ctx: _core.Context, indptr: object, indices: object, n_cols: int) -> int:
    """
    0, or bits: 1 = columns of a row not ascending or not unique, 2 = column out of range.
    """

def gene_moments(
    ctx: _core.Context,
    x: object,
    groups: object | None = None,
    n_groups: int = 1,
    ddof: int = 1,
    expm1: bool = False,
    expm1_scale: float = 1.0,
    with_total: bool = False,
) -> tuple[Any, ...]:
    """
    (mean, variance, n_rows, counts): moments of every column, by group of rows.
    """

def highly_variable_genes(
    ctx: _core.Context,
    x: object,
    flavor: str,
    n_top_genes: int | None,
    min_mean: float,
    max_mean: float,
    min_disp: float,
    max_disp: float,
    n_bins: int,
    span: float,
    log_base: float | None,
    batches: object | None,
    n_batches: int,
    filter_unexpressed_genes: bool,
    tie_order: object | None,
    theta: float,
    clip: float | None,
) -> dict:
    """Columns of var by name; those that the flavor does not have are empty."""

def log1p(ctx: _core.Context, x: object, base: float | None) -> None:
    """ln(1 + x) of the stored values, in place."""

def knn(
    ctx: _core.Context,
    x: object,
    n_neighbors: int,
    metric: str,
    p: float,
    algorithm: str,
    min_recall: float | None = None,
    recall_sample: int | None = None,
    n_trees: int | None = None,
    max_rounds: int | None = None,
) -> tuple[Any, ...]:
    """(indices, distances, info), each list starting with the cell itself"""

def neighbor_graphs(
    ctx: _core.Context,
    x: object,
    n_neighbors: int,
    metric: str,
    p: float,
    algorithm: str,
    method: str,
    min_recall: float | None = None,
    recall_sample: int | None = None,
    n_trees: int | None = None,
    max_rounds: int | None = None,
) -> tuple[Any, ...]:
    r"""
    (distances, weights, info): (indptr, indices, data) of both graphs as NumPy arrays; method \'\': no weights
    """

def knows_metric(name: str) -> bool: ...
def connectivities(
    ctx: _core.Context, indices: object, distances: object, n: int, k: int, method: str, metric: str
) -> tuple[Any, ...]:
    """(indptr, indices, data) of the symmetric weights of n x k lists"""

def distance_graph(ctx: _core.Context, indices: object, distances: object, n: int, k: int) -> tuple[Any, ...]:
    """
    (indptr, indices, data) of the distances of n x k lists, each to the others.
    """

def pairwise_distances(ctx: _core.Context, x: object, metric: str, p: float) -> Any:
    """All distances, n x n."""

def gauss_kernel(ctx: _core.Context, distances: object, n_neighbors: int) -> Any:
    """Dense Gauss kernel of all distances."""

def normalize_pearson_residuals(ctx: _core.Context, x: object, theta: float, clip: float | None) -> tuple[Any, ...]:
    """(residuals, whether x holds counts)."""

def normalize_total(
    ctx: _core.Context,
    x: object,
    target_sum: float | None,
    exclude_highly_expressed: bool,
    max_fraction: float,
    with_counts: bool = True,
) -> tuple[Any, ...]:
    """
    Scales the rows of x in place; returns (counts or None, target_sum, n_empty).
    """

def size_factors(
    ctx: _core.Context, x: object, target_sum: float | None, exclude_highly_expressed: bool, max_fraction: float
) -> tuple[Any, ...]:
    """What normalize_total returns; x stays as it is."""

def pca(
    ctx: _core.Context,
    x: object,
    n_comps: int,
    zero_center: bool,
    gene_mask: object | None,
    scale: bool,
    max_value: float | None,
    whole: bool,
    double_scores: bool,
) -> dict:
    """
    Scores [n x k], components [genes in use x k], variance, variance_ratio.
    """

def regress_out(ctx: _core.Context, x: object, keys: object) -> int:
    """Residuals of dense x, in place; returns the keys that counted."""

def regress_out_to_dense(ctx: _core.Context, x: object, keys: object) -> tuple[Any, ...]:
    """(residuals of x as a dense matrix, keys that counted)."""

def fit_regression(ctx: _core.Context, x: object, keys: object) -> tuple[Any, ...]:
    """(coefficients [1 + keys x genes], keys that counted)."""

def regress_out_categories(ctx: _core.Context, x: object, codes: object, n_categories: int) -> None:
    """Subtracts category means of dense x, in place."""

def regress_out_categories_to_dense(ctx: _core.Context, x: object, codes: object, n_categories: int) -> Any:
    """x minus category means, as a dense matrix."""

def scale(
    ctx: _core.Context, x: object, zero_center: bool, max_value: float | None, mask: object | None
) -> tuple[Any, ...]:
    """Scales x in place; returns (mean, std)."""

def scale_to_dense(
    ctx: _core.Context, x: object, zero_center: bool, max_value: float | None, mask: object | None
) -> tuple[Any, ...]:
    """(matrix, mean, std): scaled x as a new dense matrix."""

def sqrt(ctx: _core.Context, x: object) -> None:
    """Square root of the stored values, in place."""

def subset(ctx: _core.Context, x: object, cells: object | None, genes: object | None) -> Any:
    """Rows and columns by mask: (indptr, indices, data) or a dense array."""
