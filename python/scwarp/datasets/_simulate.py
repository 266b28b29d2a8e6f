from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .. import _core
from .._context import make_context, require_integer

if TYPE_CHECKING:
    from anndata import AnnData


def simulate(
    n_cells: int = 5000,
    n_genes: int = 20_000,
    *,
    n_clusters: int = 8,
    n_batches: int = 1,
    doublet_rate: float = 0.05,
    damaged_rate: float = 0.04,
    mean_counts: float = 3000.0,
    seed: int = 0,
) -> AnnData:
    """Counts with planted clusters, batches, doublets, damaged cells and mitochondrial genes.

    The same numbers for the same arguments, on any machine and for any number of threads.

    Parameters
    ----------
    n_cells, n_genes
        Size; at least 50 genes, of which the first 13 are mitochondrial.
    n_clusters, n_batches
        Planted groups; clusters come in lineages of three.
    doublet_rate, damaged_rate
        Shares of cells that are the sum of two, and of cells with much mitochondrial RNA and little depth.
    mean_counts
        Mean UMI counts of an intact single cell.
    seed
        Any whole number from 0 to 2**64 - 1.

    Returns
    -------
    AnnData with float32 CSR counts; ``obs``: ``cluster``, ``batch`` (categories), ``is_doublet``, ``is_damaged``;
    ``var``: ``marker_of`` (category; missing: no marker).
    """
    import pandas as pd
    import scipy.sparse as sp
    from anndata import AnnData

    op = "datasets.simulate"
    n_cells, n_genes = require_integer(op, "n_cells", n_cells), require_integer(op, "n_genes", n_genes)
    n_clusters = require_integer(op, "n_clusters", n_clusters)
    n_batches = require_integer(op, "n_batches", n_batches)
    seed = require_integer(op, "seed", seed)
    if not 0 <= seed < 2**64:
        raise ValueError(f"{op}: seed must be from 0 to 2**64 - 1 (got {seed})")
    ctx = make_context(op=op, seed=seed)
    (indptr, indices, data), cells, genes, cluster, batch, doublet, damaged, marker = _core.datasets.simulate(
        ctx, n_cells, n_genes, n_clusters, n_batches, doublet_rate, damaged_rate, mean_counts
    )
    if indptr[-1] <= np.iinfo(np.int32).max:
        indptr = indptr.astype(np.int32)
    x = sp.csr_matrix((data, indices, indptr), shape=(n_cells, n_genes), copy=False)
    names = [str(k) for k in range(max(n_clusters, n_batches))]
    obs = pd.DataFrame(
        {
            "cluster": pd.Categorical.from_codes(cluster, names[:n_clusters]),
            "batch": pd.Categorical.from_codes(batch, names[:n_batches]),
            "is_doublet": doublet.astype(bool),
            "is_damaged": damaged.astype(bool),
        },
        index=cells,
    )
    var = pd.DataFrame({"marker_of": pd.Categorical.from_codes(marker, names[:n_clusters])}, index=genes)
    return AnnData(x, obs=obs, var=var)
