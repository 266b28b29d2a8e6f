"""pp.neighbors with a CuPy representation: the graphs of the CPU, bit by bit, as SciPy matrices."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pytest
import scipy.sparse as sp
from gpu import cp

import scwarp as scw


def representation(n: int, d: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(6, d)) * 4
    x = (centres[rng.integers(0, 6, n)] + rng.normal(size=(n, d))).astype(np.float32)
    x[10:40] = x[5]  # duplicates
    return x


@pytest.mark.parametrize("metric", ["euclidean", "cosine", "inner_product", "manhattan"])
@pytest.mark.parametrize("method", ["umap", "gauss", "jaccard"])
def test_the_graphs_have_the_bits_of_the_cpu(metric, method):
    n = 3000
    x = representation(n, 30)
    graphs = []
    for on_device in (False, True):
        a = ad.AnnData(np.zeros((n, 60), np.float32))
        a.obsm["X_rep"] = cp.asarray(x) if on_device else x
        scw.pp.neighbors(a, 12, use_rep="X_rep", metric=metric, method=method, algorithm="brute")
        graphs.append(a)
    want, got = graphs
    assert got.uns["neighbors"]["params"] == want.uns["neighbors"]["params"]
    for key in ("distances", "connectivities"):
        g, w = got.obsp[key], want.obsp[key]
        assert isinstance(g, sp.csr_matrix) and g.indptr.dtype == w.indptr.dtype == np.int32
        np.testing.assert_array_equal(g.indptr, w.indptr)
        np.testing.assert_array_equal(g.indices, w.indices)
        np.testing.assert_array_equal(g.data, w.data)
        assert g.nnz >= n * 11 and g.data.max() > 0


def test_the_neighbours_are_those_of_brute_force():
    n, k = 20000, 15
    x = cp.asarray(representation(n, 50, seed=1))
    a = ad.AnnData(np.zeros((n, 60), np.float32))
    a.obsm["X_rep"] = x
    scw.pp.neighbors(a, k, use_rep="X_rep")
    exact = x.astype(cp.float64)
    for i in (0, 5, 17, 12345, n - 1):
        d = ((exact - exact[i]) ** 2).sum(axis=1).get()
        d[i] = np.inf
        nearest = np.lexsort((np.arange(n), d))[: k - 1]
        row = a.obsp["distances"][i]
        np.testing.assert_array_equal(row.indices, nearest)
        np.testing.assert_allclose(row.data, np.sqrt(d[nearest]), rtol=1e-6, atol=1e-6)
