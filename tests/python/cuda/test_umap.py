"""UMAP of a graph on a GPU: the CPU's bits, every start, and repeats."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pytest
from gpu import csp

import scwarp as scw


@pytest.fixture(scope="module")
def cells() -> ad.AnnData:
    r = np.random.default_rng(3)
    centres = r.normal(size=(6, 20)) * 2.5
    x = np.concatenate([c + r.normal(size=(700, 20)) for c in centres]).astype(np.float32)
    a = ad.AnnData(np.zeros((len(x), 1), np.float32), obsm={"X_pca": x})
    scw.pp.neighbors(a, use_rep="X_pca")
    return a


def on_gpu(a: ad.AnnData) -> ad.AnnData:
    b = a.copy()
    b.obsp["connectivities"] = csp.csr_matrix(a.obsp["connectivities"])
    return b


@pytest.mark.parametrize("init", ["spectral", "random", "pca", "array"])
@pytest.mark.parametrize("n_components", [2, 3])
def test_embedding_has_the_bits_of_the_cpu_and_repeats(cells, init, n_components):
    start = np.random.default_rng(1).normal(size=(cells.n_obs, n_components)).astype(np.float32)
    options = {"init_pos": start if init == "array" else init, "n_components": n_components, "maxiter": 60}
    on_cpu, first, second = cells.copy(), on_gpu(cells), on_gpu(cells)
    for a in (on_cpu, first, second):
        scw.tl.umap(a, **options)
    assert isinstance(first.obsm["X_umap"], np.ndarray)
    assert np.ptp(first.obsm["X_umap"], axis=0).min() > 1
    np.testing.assert_array_equal(first.obsm["X_umap"], on_cpu.obsm["X_umap"])
    np.testing.assert_array_equal(second.obsm["X_umap"], first.obsm["X_umap"])
    assert first.uns["umap"] == on_cpu.uns["umap"]


def test_neighbours_stay_together(cells):
    from sklearn.manifold import trustworthiness

    a = on_gpu(cells)
    scw.tl.umap(a)
    assert trustworthiness(a.obsm["X_pca"], a.obsm["X_umap"], n_neighbors=15) > 0.85


def test_separate_groups_and_single_cells():
    """Components of every size are placed side by side, on the GPU as on the CPU."""
    import scipy.sparse as sp

    r = np.random.default_rng(0)
    blocks = []
    for size in (2500, 1200, 300, 40, 3, 2, 1, 1):
        x = ad.AnnData(np.zeros((size, 1), np.float32), obsm={"X_pca": r.normal(size=(size, 5)).astype(np.float32)})
        if size > 20:
            scw.pp.neighbors(x, use_rep="X_pca", n_neighbors=10)
            blocks.append(x.obsp["connectivities"])
        else:
            blocks.append(sp.csr_matrix(np.ones((size, size), np.float32) - np.eye(size, dtype=np.float32)))
    graph = sp.block_diag(blocks, format="csr", dtype=np.float32)
    graph.sort_indices()
    n = graph.shape[0]
    a = ad.AnnData(np.zeros((n, 1), np.float32), obsp={"connectivities": graph})
    a.uns["neighbors"] = {"connectivities_key": "connectivities", "params": {"method": "umap"}}
    b = on_gpu(a)
    for x in (a, b):
        scw.tl.umap(x, maxiter=30)
    np.testing.assert_array_equal(b.obsm["X_umap"], a.obsm["X_umap"])
    assert len(np.unique(b.obsm["X_umap"], axis=0)) == n


def test_graphs_that_are_not_symmetric(cells):
    """(A + A^T) / 2 is embedded, on the GPU as on the CPU, and the caller's graph stays as it is."""
    import scipy.sparse as sp

    whole = cells.obsp["connectivities"]
    thinned = whole.copy()
    thinned.data[np.random.default_rng(0).random(whole.nnz) < 0.3] = 0  # stored zeros
    for graph in (sp.triu(whole).tocsr(), thinned, cells.obsp["distances"].astype(np.float32)):
        a, b = cells.copy(), cells.copy()
        a.obsp["connectivities"] = graph.copy()
        b.obsp["connectivities"] = ((graph + graph.T) / 2).tocsr()
        on_device = on_gpu(a)
        for start in ("spectral", "random"):
            for x in (a, b, on_device):
                scw.tl.umap(x, init_pos=start, maxiter=30)
            np.testing.assert_array_equal(on_device.obsm["X_umap"], a.obsm["X_umap"])
            np.testing.assert_array_equal(b.obsm["X_umap"], a.obsm["X_umap"])
        np.testing.assert_array_equal(on_device.obsp["connectivities"].get().toarray(), graph.toarray())


def test_errors(cells):
    a = on_gpu(cells)
    a.obsp["connectivities"].data[7] = -1
    with pytest.raises(ValueError, match=r"must be finite and not negative \(got -1"):
        scw.tl.umap(a)
    assert "X_umap" not in a.obsm
