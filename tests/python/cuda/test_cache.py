"""Device copies of host slots: found again by content, so never out of date."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pytest

import scwarp as scw

if scw._core.unavailable_reason("cuda"):
    pytest.skip("no CUDA device: " + scw._core.unavailable_reason("cuda"), allow_module_level=True)


def cache() -> dict:
    return scw.memory.info()["cache"]


@pytest.fixture
def adata():
    scw.memory.free()
    x = np.random.default_rng(2).normal(size=(20000, 60)).astype(np.float32)
    x[:10000] += 2
    a = ad.AnnData(x)
    scw.pp.pca(a, n_comps=30, device="cuda")
    return a


def uploads(f) -> int:
    before = cache()["uploaded_bytes"]
    f()
    return cache()["uploaded_bytes"] - before


def test_neighbors_umap_leiden_upload_nothing(adata):
    assert uploads(lambda: scw.pp.neighbors(adata, use_rep="X_pca", device="cuda")) == 0
    steps = [lambda: scw.tl.umap(adata, maxiter=5, init_pos="random", device="cuda")]
    if scw._core.supports("tl.leiden", "cuda"):
        steps.append(lambda: scw.tl.leiden(adata, device="cuda"))
    for step in steps:
        # The row offsets alone: SciPy holds them as int32.
        assert uploads(step) <= 8 * (adata.n_obs + 1)


def test_a_slot_that_was_edited_is_not_taken_from_the_cache(adata):
    adata.obsm["X_pca"][5, 3] += 1000
    scw.pp.neighbors(adata, use_rep="X_pca", device="cuda")
    fresh = ad.AnnData(adata.X)
    fresh.obsm["X_pca"] = adata.obsm["X_pca"].copy()
    scw.pp.neighbors(fresh, use_rep="X_pca", device="cpu")
    np.testing.assert_array_equal(adata.obsp["distances"].data, fresh.obsp["distances"].data)
    # The graph, edited in place.
    adata.obsp["connectivities"].data[:] = 1
    got = uploads(lambda: scw.tl.umap(adata, maxiter=5, init_pos="random", device="cuda"))
    assert got >= adata.obsp["connectivities"].data.nbytes


def test_a_copy_is_as_good_as_the_slot(adata):
    scores = adata.obsm["X_pca"].copy()
    adata.obsm["X_other"] = scores
    assert uploads(lambda: scw.pp.neighbors(adata, use_rep="X_other", device="cuda")) == 0


def test_results_are_those_without_a_cache(adata):
    scw.pp.neighbors(adata, use_rep="X_pca", device="cuda")
    scw.tl.umap(adata, maxiter=5, device="cuda")
    cold = ad.AnnData(adata.X)
    cold.obsm["X_pca"] = adata.obsm["X_pca"]
    scw.memory.free()
    scw.pp.neighbors(cold, use_rep="X_pca", device="cuda")
    scw.memory.free()
    scw.tl.umap(cold, maxiter=5, device="cuda")
    np.testing.assert_array_equal(cold.obsm["X_umap"], adata.obsm["X_umap"])
    assert (cold.obsp["connectivities"] != adata.obsp["connectivities"]).nnz == 0


def test_cupy_scores_are_remembered():
    cp = pytest.importorskip("cupy")
    scw.memory.free()
    a = ad.AnnData(cp.asarray(np.random.default_rng(3).normal(size=(20000, 60)).astype(np.float32)))
    scw.pp.pca(a, n_comps=30)
    assert isinstance(a.obsm["X_pca"], np.ndarray)
    assert uploads(lambda: scw.pp.neighbors(a, use_rep="X_pca", device="cuda")) == 0
