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

def log1p(ctx: _core.Context, x: object, base: float | None) -> None:
    """ln(1 + x) of the stored values, in place."""

def normalize_total(
    ctx: _core.Context, x: object, target_sum: float | None, exclude_highly_expressed: bool, max_fraction: float
) -> tuple[Any, ...]:
    """
    Scales the rows of x in place; returns (counts, target_sum, n_empty, gene_excluded).
    """

def subset(ctx: _core.Context, x: object, cells: object | None, genes: object | None) -> Any:
    """Rows and columns by mask: (indptr, indices, data) or a dense array."""
