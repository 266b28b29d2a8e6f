"""Getting data out."""

from ._aggregate import aggregate
from ._frames import obs_df, rank_genes_groups_df, var_df
from ._transfer import X_to_CPU, X_to_GPU, anndata_to_CPU, anndata_to_GPU

__all__ = [
    "X_to_CPU",
    "X_to_GPU",
    "aggregate",
    "anndata_to_CPU",
    "anndata_to_GPU",
    "obs_df",
    "rank_genes_groups_df",
    "var_df",
]
