"""Tools."""

from ..pp._pca import pca
from ._leiden import leiden
from ._rank_genes_groups import rank_genes_groups, rank_genes_groups_logreg
from ._score_genes import score_genes, score_genes_cell_cycle
from ._umap import umap

__all__ = [
    "leiden",
    "pca",
    "rank_genes_groups",
    "rank_genes_groups_logreg",
    "score_genes",
    "score_genes_cell_cycle",
    "umap",
]
