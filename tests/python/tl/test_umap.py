"""UMAP against umap-learn (live, through scanpy): curve, slots, trustworthiness, bounding box, separated clusters."""

from __future__ import annotations

import os
import signal
import threading
import time

import anndata as ad
import numpy as np
import pytest
import scanpy as sc
import scipy.sparse as sp
from sklearn.manifold import trustworthiness

import scwarp as scw


def knn_data(n: int = 600, seed: int = 0, n_clusters: int = 6) -> ad.AnnData:
    """Gaussian clusters with scanpy's fuzzy graph."""
    r = np.random.default_rng(seed)
    label = r.integers(0, n_clusters, n)
    x = (r.normal(0, 2.0, (n_clusters, 20))[label] + r.normal(0, 1, (n, 20))).astype(np.float32)
    a = ad.AnnData(x)
    a.obs["type"] = label.astype(str)
    a.obs["type"] = a.obs["type"].astype("category")
    a.obsm["X_pca"] = x
    sc.pp.neighbors(a, n_neighbors=15, use_rep="X_pca")
    return a


@pytest.fixture(scope="module")
def data() -> ad.AnnData:
    return knn_data()


def beyond(reference: np.ndarray, y: np.ndarray) -> float:
    """How far y reaches beyond the bounding box of the reference, centres aligned, in its standard deviations."""
    y = y - y.mean(0) + reference.mean(0)
    sd = reference.std(0)
    return float(max(((reference.min(0) - y.min(0)) / sd).max(), ((y.max(0) - reference.max(0)) / sd).max()))


def aligned(reference: np.ndarray, y: np.ndarray) -> np.ndarray:
    """y turned and mirrored onto the reference (no scaling): the axes of an embedding mean nothing."""
    r, z = reference - reference.mean(0), y - y.mean(0)
    u, _, vt = np.linalg.svd(z.T @ r)
    return z @ (u @ vt) + reference.mean(0)


def as_good_as_umap_learn(a: ad.AnnData, x: np.ndarray, labels) -> None:
    reference = sc.tl.umap(a, copy=True).obsm["X_umap"]
    ours = scw.tl.umap(a, copy=True).obsm["X_umap"]
    assert trustworthiness(x, ours, n_neighbors=15) >= trustworthiness(x, reference, n_neighbors=15) - 0.005
    assert beyond(reference, aligned(reference, ours)) < 2
    # Clusters that umap-learn separates are separated: 15 nearest neighbours in the plane share the label as often.
    from sklearn.neighbors import NearestNeighbors

    def purity(y):
        j = NearestNeighbors(n_neighbors=16).fit(y).kneighbors(return_distance=False)
        codes = np.unique(labels, return_inverse=True)[1]
        return (codes[j] == codes[:, None]).mean()

    assert purity(ours) >= purity(reference) - 0.01


@pytest.mark.parametrize("name", ["pbmc3k", "pbmc68k"])
def test_as_good_as_umap_learn_on_real_data(shared_data, name):
    file = {"pbmc3k": "pbmc3k/pbmc3k_processed.h5ad", "pbmc68k": "pbmc68k_reduced/pbmc68k_reduced.h5ad"}[name]
    a = ad.read_h5ad(shared_data / file)
    labels = a.obs["louvain"].astype(str).to_numpy()
    as_good_as_umap_learn(a, a.obsm["X_pca"], labels)


def test_as_good_as_umap_learn_on_cell_lines(shared_data):
    a = ad.read_h5ad(shared_data / "cellbench_integration" / "cellbench_5batches.h5ad")
    sc.pp.normalize_total(a)
    sc.pp.log1p(a)
    sc.pp.highly_variable_genes(a, n_top_genes=1000)
    a = a[:, a.var.highly_variable].copy()
    sc.pp.pca(a, n_comps=30)
    sc.pp.neighbors(a, n_neighbors=15)
    as_good_as_umap_learn(a, a.obsm["X_pca"], a.obs["cell_line"].astype(str).to_numpy())


def test_as_good_as_umap_learn_on_simulated_clusters(data):
    as_good_as_umap_learn(data, data.obsm["X_pca"], data.obs["type"].to_numpy())


def test_curve_equals_umap_learn():
    from umap.umap_ import find_ab_params

    g = sp.csr_matrix((3, 3), dtype=np.float32)
    a = ad.AnnData(np.zeros((3, 1), np.float32), obsp={"connectivities": g}, uns={"neighbors": {"params": {}}})
    for min_dist, spread in [(0.5, 1), (0.1, 1), (0.3, 1), (0, 1), (0.5, 2), (0.01, 0.5), (0.8, 1), (0.5, 5)]:
        scw.tl.umap(a, min_dist=min_dist, spread=spread)
        theirs = find_ab_params(spread, min_dist)
        params = a.uns["umap"]["params"]
        np.testing.assert_allclose([params["a"], params["b"]], theirs, rtol=5e-6)  # theirs stops at about 1e-6
    scw.tl.umap(a, a=0.7, b=1.1)
    assert a.uns["umap"]["params"] == {"a": 0.7, "b": 1.1}


def test_slots_are_scanpys(data):
    for kwargs in [{}, {"random_state": 7}, {"key_added": "mine"}, {"n_components": 3}]:
        theirs = sc.tl.umap(data, copy=True, maxiter=5, **kwargs)
        ours = scw.tl.umap(data, copy=True, maxiter=5, **kwargs)
        assert set(ours.obsm) == set(theirs.obsm)
        assert set(ours.uns) == set(theirs.uns)
        key = kwargs.get("key_added", "X_umap")
        assert ours.obsm[key].shape == theirs.obsm[key].shape
        assert ours.obsm[key].dtype == np.float32
        uns = kwargs.get("key_added", "umap")
        assert set(ours.uns[uns]["params"]) == set(theirs.uns[uns]["params"])
        assert ours.uns[uns]["params"].get("random_state") == theirs.uns[uns]["params"].get("random_state")
    assert "X_umap" not in data.obsm


def test_same_bits_for_threads_and_reruns(data):
    results = []
    before = scw.settings.n_threads
    try:
        for threads in (1, 2, 3, 1, 2):
            scw.settings.n_threads = threads
            results.append(scw.tl.umap(data, maxiter=50, copy=True).obsm["X_umap"])
    finally:
        scw.settings.n_threads = before
    for r in results[1:]:
        np.testing.assert_array_equal(results[0], r)
    assert np.any(results[0] != scw.tl.umap(data, maxiter=50, random_state=1, copy=True).obsm["X_umap"])
    one = scw.tl.umap(data, maxiter=50, rng=5, copy=True)
    np.testing.assert_array_equal(one.obsm["X_umap"], scw.tl.umap(data, maxiter=50, rng=5, copy=True).obsm["X_umap"])
    assert "random_state" not in one.uns["umap"]["params"]


def test_graph_layouts_give_the_same(data):
    first = scw.tl.umap(data, maxiter=20, copy=True).obsm["X_umap"]
    g = data.obsp["connectivities"]
    wide = sp.csr_matrix(g)
    wide.indptr, wide.indices = wide.indptr.astype(np.int64), wide.indices.astype(np.int64)
    for other in [g.tocsc(), g.astype(np.float64), sp.csr_array(g), wide, g.toarray()]:
        a = data.copy()
        a.obsp["connectivities"] = other
        before = other.copy()
        scw.tl.umap(a, maxiter=20)
        np.testing.assert_array_equal(a.obsm["X_umap"], first)
        assert type(a.obsp["connectivities"]) is type(before)
        assert abs(a.obsp["connectivities"] - before).max() == 0


def test_starts(data):
    a = data.copy()
    n = a.n_obs
    r = np.random.default_rng(0)
    start = r.normal(size=(n, 2))
    a.obsm["mine"] = start
    by_key = scw.tl.umap(a, init_pos="mine", maxiter=0, copy=True).obsm["X_umap"]
    by_array = scw.tl.umap(a, init_pos=start, maxiter=0, copy=True).obsm["X_umap"]
    np.testing.assert_array_equal(by_key, by_array)
    expected = 10 * (start - start.min(0)) / np.ptp(start, 0)
    np.testing.assert_allclose(by_key, expected, atol=1e-4)
    np.testing.assert_array_equal(
        scw.tl.umap(a, init_pos="auto", maxiter=3, copy=True).obsm["X_umap"],
        scw.tl.umap(a, init_pos="spectral", maxiter=3, copy=True).obsm["X_umap"],
    )
    pca = scw.tl.umap(a, init_pos="pca", maxiter=0, copy=True).obsm["X_umap"]
    x = a.obsm["X_pca"][:, :2]
    np.testing.assert_allclose(pca, 10 * (x - x.min(0)) / np.ptp(x, 0), atol=1e-4)
    uniform = scw.tl.umap(a, init_pos="random", maxiter=0, copy=True).obsm["X_umap"]
    assert 4 < uniform.mean() < 6 and uniform.min() == 0 and uniform.max() == 10
    for init in ("random", "pca", "mine"):
        y = scw.tl.umap(a, init_pos=init, copy=True).obsm["X_umap"]
        assert trustworthiness(a.obsm["X_pca"], y, n_neighbors=15) > 0.85, init


def test_paga_start(data, caplog):
    a = data.copy()
    r = np.random.default_rng(0)
    coarse = np.triu(r.random((6, 6)) * (r.random((6, 6)) < 0.6), 1)
    coarse[:, 3] = coarse[3] = 0  # a group without neighbours: its cells start at one point
    a.uns["paga"] = {
        "groups": "type",
        "connectivities": sp.csr_matrix(coarse + coarse.T),
        "pos": r.normal(size=(6, 2)) * 5,
    }
    from scanpy.tools._utils import get_init_pos_from_paga

    expected = get_init_pos_from_paga(a, random_state=0)
    expected = 10 * (expected - expected.min(0)) / np.ptp(expected, 0)
    np.testing.assert_allclose(
        scw.tl.umap(a, init_pos="paga", maxiter=0, copy=True).obsm["X_umap"], expected, atol=2e-3
    )
    for n_components in (1, 3):  # does not count: the start has two columns
        theirs = sc.tl.umap(a, init_pos="paga", n_components=n_components, maxiter=5, copy=True)
        with caplog.at_level("WARNING", logger="scwarp"):
            ours = scw.tl.umap(a, init_pos="paga", n_components=n_components, maxiter=5, copy=True)
        assert ours.obsm["X_umap"].shape == theirs.obsm["X_umap"].shape == (a.n_obs, 2)
        assert f"n_components={n_components}" in caplog.text
        two = scw.tl.umap(a, init_pos="paga", maxiter=5, copy=True)
        np.testing.assert_array_equal(ours.obsm["X_umap"], two.obsm["X_umap"])
    del a.uns["paga"]["pos"]
    with pytest.raises(ValueError, match="plot PAGA first"):
        scw.tl.umap(a, init_pos="paga")


def test_disconnected_and_isolated_cells():
    parts = [knn_data(150, seed=s, n_clusters=1).obsp["connectivities"] for s in range(7)]
    g = sp.block_diag([*parts, sp.csr_matrix((25, 25))]).tocsr().astype(np.float32)
    a = ad.AnnData(np.zeros((g.shape[0], 1), np.float32), obsp={"connectivities": g}, uns={"neighbors": {"params": {}}})
    scw.tl.umap(a)
    y = a.obsm["X_umap"]
    assert np.isfinite(y).all()
    assert np.ptp(y, 0).max() < 60
    label = np.repeat(np.arange(7), 150)
    middle = np.stack([y[: len(label)][label == k].mean(0) for k in range(7)])
    nearest = ((y[: len(label), None] - middle[None]) ** 2).sum(2).argmin(1)
    assert (nearest == label).mean() > 0.98


@pytest.mark.parametrize("n", [1, 2, 3, 4])
@pytest.mark.parametrize("n_components", [2, 3, 5])
def test_few_cells(n, n_components):
    g = sp.csr_matrix(np.ones((n, n), np.float32) - np.eye(n, dtype=np.float32))
    a = ad.AnnData(np.zeros((n, 1), np.float32), obsp={"connectivities": g}, uns={"neighbors": {"params": {}}})
    scw.tl.umap(a, n_components=n_components)
    assert a.obsm["X_umap"].shape == (n, n_components)
    assert np.isfinite(a.obsm["X_umap"]).all()


def test_views_and_neighbors_key(data):
    a = data.copy()
    a.uns["other"] = {"connectivities_key": "other_connectivities", "params": {"method": "umap"}}
    a.obsp["other_connectivities"] = a.obsp["connectivities"]
    view = a[: a.n_obs]
    scw.tl.umap(view, neighbors_key="other", maxiter=10)
    assert not view.is_view
    assert "X_umap" not in a.obsm
    np.testing.assert_array_equal(view.obsm["X_umap"], scw.tl.umap(a, maxiter=10, copy=True).obsm["X_umap"])


def test_graphs_that_are_not_symmetric(data):
    """Both ends of an edge move, as in umap-learn: what counts is (A + A^T) / 2."""
    whole = data.obsp["connectivities"]
    some = np.random.default_rng(0).random(whole.nnz) < 0.5
    thinned = whole.copy()
    thinned.data = np.where(some, thinned.data, np.float32(0))
    thinned.eliminate_zeros()
    for graph in (sp.triu(whole), sp.tril(whole), thinned, data.obsp["distances"]):
        a, b = data.copy(), data.copy()
        a.obsp["connectivities"] = graph.tocsr()
        b.obsp["connectivities"] = ((graph + graph.T) / 2).tocsr()
        for start in ("spectral", "random"):
            scw.tl.umap(a, init_pos=start, maxiter=50)
            scw.tl.umap(b, init_pos=start, maxiter=50)
            np.testing.assert_array_equal(a.obsm["X_umap"], b.obsm["X_umap"])
    a = data.copy()
    a.obsp["connectivities"] = sp.triu(whole).tocsr()
    scw.tl.umap(a)
    np.testing.assert_array_equal(a.obsm["X_umap"], scw.tl.umap(data, copy=True).obsm["X_umap"])


def test_weights_are_reported_as_they_were_given(data):
    """Before the average of a graph that is not symmetric is made."""
    a = data.copy()
    a.obsp["connectivities"] = sp.csr_matrix(a.obsp["connectivities"], copy=True)
    a.obsp["connectivities"].data[7] = -1
    with pytest.raises(ValueError, match=r"must be finite and not negative \(got -1 between cells 0 and"):
        scw.tl.umap(a)


def test_errors_leave_the_object_alone(data):
    a = data.copy()
    a.obsm["sparse"] = sp.csr_matrix(np.ones((a.n_obs, 2)))
    before_obsm, before_uns = set(a.obsm), set(a.uns)
    bad = [
        ({"neighbors_key": "nothing"}, ValueError, "nothing"),
        ({"init_pos": "nonsense"}, ValueError, "init_pos"),
        ({"init_pos": "sparse"}, ValueError, "sparse"),
        ({"init_pos": np.zeros((3, 2))}, ValueError, "shape"),
        ({"init_pos": np.zeros(a.n_obs)}, ValueError, "shape"),
        ({"init_pos": np.full((a.n_obs, 2), np.nan)}, ValueError, "finite"),
        ({"min_dist": -1}, ValueError, "min_dist"),
        ({"spread": 0}, ValueError, "spread"),
        ({"n_components": 0}, ValueError, "n_components"),
        ({"maxiter": -1}, ValueError, "maxiter"),
        ({"alpha": 0}, ValueError, "alpha"),
        ({"gamma": -1}, ValueError, "gamma"),
        ({"negative_sample_rate": -1}, ValueError, "negative_sample_rate"),
        ({"method": "rapids"}, ValueError, "method"),
        ({"random_state": 1, "rng": 1}, TypeError, "rng"),
    ]
    for kwargs, error, text in bad:
        with pytest.raises(error, match=text):
            scw.tl.umap(a, **kwargs)
    a.obsp["connectivities"].data[3] = np.nan
    with pytest.raises(ValueError, match="finite"):
        scw.tl.umap(a)
    assert set(a.obsm) == before_obsm and set(a.uns) == before_uns


def test_stops_on_ctrl_c():
    a = knn_data(3000, n_clusters=10)
    seen = {}

    def interrupt():
        time.sleep(0.5)
        seen["sent"] = time.perf_counter()
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    with pytest.raises(KeyboardInterrupt):
        thread.start()
        scw.tl.umap(a, maxiter=1_000_000)
    elapsed = time.perf_counter() - seen["sent"]
    thread.join()
    assert elapsed < 0.2
    assert "X_umap" not in a.obsm


def test_plots(data):
    a = scw.tl.umap(data, maxiter=20, copy=True)
    import matplotlib

    matplotlib.use("Agg")
    sc.pl.umap(a, color="type", show=False)
