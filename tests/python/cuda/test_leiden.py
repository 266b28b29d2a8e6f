"""Leiden on CuPy graphs: the CPU's labels."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pytest
import scipy.sparse as sp
from gpu import csp

import scwarp as scw


def communities(n: int, groups: int, k: int, seed: int) -> sp.csr_matrix:
    """k edges a vertex, nine in ten of them into its own group, with random weights."""
    r = np.random.default_rng(seed)
    z = np.sort(r.integers(0, groups, n))
    starts = np.searchsorted(z, np.arange(groups + 1))
    i = np.repeat(np.arange(n), k)
    inside = starts[z[i]] + (r.random(n * k) * (starts[z[i] + 1] - starts[z[i]])).astype(int)
    j = np.where(r.random(n * k) < 0.9, inside, r.integers(0, n, n * k))
    g = sp.csr_matrix((r.uniform(0.1, 1, n * k).astype(np.float32), (i, j)), (n, n))
    return g.maximum(g.T).tocsr()


def data_of(n: int) -> ad.AnnData:
    return ad.AnnData(sp.csr_matrix((n, 1), dtype=np.float32))


@pytest.mark.parametrize("n", [2000, 20000])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_labels_of_the_cpu(n, dtype):
    graph = communities(n, 12, 8, seed=n).astype(dtype)
    on_cpu, on_gpu = data_of(n), data_of(n)
    options = {"resolution": [0.2, 1, 4], "n_iterations": 2}
    scw.tl.leiden(on_cpu, adjacency=graph, **options)
    scw.tl.leiden(on_gpu, adjacency=csp.csr_matrix(graph), **options)
    for column in ("leiden_0.2", "leiden_1", "leiden_4"):
        assert list(on_gpu.obs[column].cat.categories) == list(on_cpu.obs[column].cat.categories)
        np.testing.assert_array_equal(on_gpu.obs[column].cat.codes, on_cpu.obs[column].cat.codes)
    assert on_gpu.uns["leiden"]["modularity"] == on_cpu.uns["leiden"]["modularity"]
    assert on_cpu.obs["leiden_1"].nunique() >= 12


def test_restrict_to_and_unweighted():
    n = 12000
    graph = communities(n, 6, 8, seed=3)
    on_cpu, on_gpu = data_of(n), data_of(n)
    for a, g in ((on_cpu, graph), (on_gpu, csp.csr_matrix(graph))):
        a.obs["g"] = np.where(np.arange(n) % 7 == 0, "x", "y")
        scw.tl.leiden(a, adjacency=g, restrict_to=("g", ["y"]))
        scw.tl.leiden(a, adjacency=g, use_weights=False, random_state=5, key_added="plain")
    for column in ("leiden_R", "plain"):
        assert (on_cpu.obs[column] == on_gpu.obs[column]).all()


def test_batches():
    """Fewer edges are sorted at once with smaller blocks."""
    n = 20000
    graph = communities(n, 12, 8, seed=7)
    on_cpu, on_gpu = data_of(n), data_of(n)
    one_way = csp.csr_matrix(sp.triu(graph).tocsr())
    scw.tl.leiden(on_cpu, adjacency=graph)
    scw.tl.leiden(on_cpu, adjacency=sp.triu(graph).tocsr(), key_added="one_way")
    with scw.settings.override(block_bytes=200_000):
        scw.tl.leiden(on_gpu, adjacency=csp.csr_matrix(graph))
        scw.tl.leiden(on_gpu, adjacency=one_way, key_added="one_way")
    for column in ("leiden", "one_way"):
        assert (on_cpu.obs[column] == on_gpu.obs[column]).all()


def test_errors():
    graph = csp.csr_matrix(communities(10000, 5, 4, seed=4))
    graph.data[5] = -1
    with pytest.raises(scw.DataError, match="edge weights must not be negative"):
        scw.tl.leiden(data_of(10000), adjacency=graph)
