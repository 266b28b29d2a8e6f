"""Getting data out."""

from ._aggregate import aggregate
from ._frames import obs_df, rank_genes_groups_df, var_df

__all__ = ["aggregate", "obs_df", "rank_genes_groups_df", "var_df"]
