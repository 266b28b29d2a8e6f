"""Preprocessing."""

from ._calculate_qc_metrics import calculate_qc_metrics
from ._filter import filter_cells, filter_genes, filter_highly_variable, flag_gene_family
from ._highly_variable_genes import highly_variable_genes
from ._log1p import log1p
from ._neighbors import neighbors
from ._normalize_pearson_residuals import normalize_pearson_residuals
from ._normalize_total import normalize_total
from ._pca import pca
from ._regress_out import regress_out
from ._scale import scale
from ._sqrt import sqrt
from ._subset import subset

__all__ = [
    "calculate_qc_metrics",
    "filter_cells",
    "filter_genes",
    "filter_highly_variable",
    "flag_gene_family",
    "highly_variable_genes",
    "log1p",
    "neighbors",
    "normalize_pearson_residuals",
    "normalize_total",
    "pca",
    "regress_out",
    "scale",
    "sqrt",
    "subset",
]
