"""Tools."""

from ..pp._pca import pca
from ._leiden import leiden
from ._rank_genes_groups import rank_genes_groups
from ._umap import umap

__all__ = ["leiden", "pca", "rank_genes_groups", "umap"]
