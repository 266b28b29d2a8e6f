from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
import scipy.sparse as sp
from sklearn.neighbors import KNeighborsTransformer, NearestNeighbors

import scwarp as scw


def cells(n=600, d=20, seed=0, dtype=np.float32):
    r = np.random.default_rng(seed)
    centres = r.normal(size=(6, d)) * np.linspace(6, 0.5, d)
    return (centres[r.integers(0, 6, n)] + r.normal(size=(n, d))).astype(dtype)


@pytest.fixture
def adata():
    return ad.AnnData(cells())


def sorted_rows(d):
    """Distances of each row, in increasing order."""
    return np.sort(d.data.reshape(d.shape[0], -1), axis=1)


def assert_same_graph(a, b, atol=1e-5, key="connectivities"):
    ca, cb = a.obsp[key], b.obsp[key]
    assert sp.issparse(ca) and ca.has_canonical_format
    assert abs(ca - cb).max() < atol
    assert abs(ca - ca.T).max() == 0
    assert ca.diagonal().max() == 0


METRICS = ["euclidean", "cosine", "manhattan", "chebyshev", "canberra", "correlation", "sqeuclidean", "minkowski"]
METRICS += ["braycurtis", "l1", "l2", "cityblock", "hamming"]


@pytest.mark.parametrize("metric", METRICS)
def test_equals_scanpy(adata, metric):
    kwds = {"p": 3} if metric == "minkowski" else {}
    if metric == "cosine":  # which scikit-learn computes in the type of the data
        adata.X = adata.X.astype(np.float64)
    b = adata.copy()
    scw.pp.neighbors(adata, metric=metric, metric_kwds=kwds, n_neighbors=12)
    sc.pp.neighbors(b, metric=metric, metric_kwds=kwds, n_neighbors=12)
    d = adata.obsp["distances"]
    assert d.dtype == np.float32 and d.nnz == 600 * 11
    np.testing.assert_allclose(sorted_rows(d), sorted_rows(b.obsp["distances"]), rtol=1e-5, atol=1e-6)
    if metric != "hamming":  # all ties
        assert_same_graph(adata, b)
        for i in range(0, 600, 50):
            assert set(d[i].indices) == set(b.obsp["distances"][i].indices)
    params = adata.uns["neighbors"]["params"]
    assert params.pop("algorithm") == "brute"
    assert adata.uns["neighbors"] == b.uns["neighbors"]


@pytest.mark.parametrize("metric", ["jensenshannon", "haversine"])
def test_other_metrics(metric):
    x = np.abs(cells(300, 2 if metric == "haversine" else 12)) / 10
    a = ad.AnnData(x)
    scw.pp.neighbors(a, metric=metric)
    from scipy.spatial.distance import cdist
    from sklearn.metrics.pairwise import haversine_distances

    full = haversine_distances(x) if metric == "haversine" else cdist(x.astype(np.float64), x, metric)
    np.testing.assert_allclose(sorted_rows(a.obsp["distances"]), np.sort(full, axis=1)[:, 1:15], rtol=1e-5, atol=1e-6)


def test_inner_product():
    x = cells(300, 10)
    a = ad.AnnData(x)
    scw.pp.neighbors(a, metric="inner_product", n_neighbors=5)
    s = x.astype(np.float64) @ x.T.astype(np.float64)
    np.fill_diagonal(s, -np.inf)
    np.testing.assert_allclose(a.obsp["distances"].data.reshape(300, 4), -np.sort(-s, axis=1)[:, :4], rtol=1e-5)
    assert a.obsp["connectivities"].data.min() > 0


def test_exact_at_a_size_where_scanpy_is_not():
    x = cells(9000, 30, seed=3)
    a = ad.AnnData(x)
    scw.pp.neighbors(a)
    dist, ind = NearestNeighbors(n_neighbors=15, algorithm="brute").fit(x.astype(np.float64)).kneighbors()
    d = a.obsp["distances"]
    np.testing.assert_allclose(d.data.reshape(9000, 14), dist[:, :14], rtol=1e-5)
    assert (d.indices.reshape(9000, 14) == ind[:, :14]).mean() > 0.99999


@pytest.mark.parametrize("kind", ["csr", "csc", "int", "fortran", "float64"])
def test_layouts(kind):
    r = np.random.default_rng(1)
    x = r.poisson(0.7, (300, 30)).astype(np.float32)
    want = ad.AnnData(x.copy())
    scw.pp.neighbors(want)
    made = {
        "csr": sp.csr_matrix,
        "csc": sp.csc_matrix,
        "int": lambda v: v.astype(np.int32),
        "fortran": np.asfortranarray,
        "float64": lambda v: v.astype(np.float64),
    }[kind](x)
    a = ad.AnnData(made)
    scw.pp.neighbors(a)
    np.testing.assert_array_equal(a.obsp["distances"].data, want.obsp["distances"].data)
    np.testing.assert_array_equal(a.obsp["distances"].indices, want.obsp["distances"].indices)
    assert type(a.X) is type(made)


@pytest.mark.parametrize("knn", [True, False])
def test_gauss(adata, knn):
    b = adata.copy()
    scw.pp.neighbors(adata, method="gauss", knn=knn)
    sc.pp.neighbors(b, method="gauss", knn=knn)
    ours, theirs = adata.obsp["connectivities"], b.obsp["connectivities"]
    assert sp.issparse(ours) == sp.issparse(theirs) == knn
    assert abs(ours - theirs).max() < 1e-5
    if knn:
        np.testing.assert_allclose(sorted_rows(adata.obsp["distances"]), sorted_rows(b.obsp["distances"]), rtol=1e-5)
    else:
        np.testing.assert_allclose(adata.obsp["distances"], b.obsp["distances"], atol=2e-5)


@pytest.mark.parametrize("n_pcs", [None, 5])
def test_a_data_frame_in_obsm(adata, n_pcs):
    adata.obsm["X_other"] = pd.DataFrame(adata.X[:, ::-1], index=adata.obs_names).add_prefix("p")
    b = adata.copy()
    scw.pp.neighbors(adata, use_rep="X_other", n_pcs=n_pcs)
    if n_pcs is not None:
        b.obsm["X_other"] = b.obsm["X_other"].to_numpy()  # scanpy takes all columns of a frame only
    sc.pp.neighbors(b, use_rep="X_other", n_pcs=n_pcs)
    assert_same_graph(adata, b)


def test_jaccard(adata):
    scw.pp.neighbors(adata, method="jaccard", n_neighbors=10)
    d = adata.obsp["distances"].copy()
    d.data[:] = 1
    shared = (d @ d.T).multiply(d).tocsr()
    w = shared.copy()
    w.data = shared.data / (18 - shared.data)
    w = (w + w.T) / 2
    assert abs(adata.obsp["connectivities"] - w).max() < 1e-6


def test_representation():
    a = ad.AnnData(cells(200, 80))
    a.obsm["X_pca"], a.obsm["X_other"] = cells(200, 20, 1), cells(200, 5, 2)
    cases = [
        ({}, a.obsm["X_pca"]),
        ({"n_pcs": 7}, a.obsm["X_pca"][:, :7]),
        ({"n_pcs": 0}, a.X),
        ({"use_rep": "X"}, a.X),
    ]
    cases += [
        ({"use_rep": "X_other"}, a.obsm["X_other"]),
        ({"use_rep": "X_other", "n_pcs": 3}, a.obsm["X_other"][:, :3]),
    ]
    for kwds, x in cases:
        scw.pp.neighbors(a, **kwds)
        b = ad.AnnData(np.ascontiguousarray(x))
        scw.pp.neighbors(b, use_rep="X")
        np.testing.assert_array_equal(a.obsp["distances"].data, b.obsp["distances"].data)
        for key, value in kwds.items():
            assert a.uns["neighbors"]["params"][key] == value
    with pytest.raises(ValueError, match="n_pcs=30"):
        scw.pp.neighbors(a, n_pcs=30)
    with pytest.raises(ValueError, match="neither in obsm nor 'X'"):
        scw.pp.neighbors(a, use_rep="nope")


def test_runs_pca_if_there_is_none():
    a = ad.AnnData(cells(200, 80))
    scw.pp.neighbors(a, n_pcs=10)
    assert a.obsm["X_pca"].shape == (200, 10)
    b = ad.AnnData(np.ascontiguousarray(a.obsm["X_pca"]))
    scw.pp.neighbors(b)
    np.testing.assert_array_equal(a.obsp["distances"].data, b.obsp["distances"].data)


def test_precomputed_distances(adata):
    from scipy.spatial.distance import cdist

    b = adata.copy()
    scw.pp.neighbors(adata)
    full = cdist(adata.X.astype(np.float64), adata.X)
    np.fill_diagonal(full, 0)
    scw.pp.neighbors(b, distances=full)
    assert_same_graph(b, adata)
    scw.pp.neighbors(b, distances=adata.obsp["distances"])
    assert_same_graph(b, adata, 1e-7)
    for convert in (sp.coo_matrix, sp.csc_matrix, sp.lil_matrix, sp.coo_array):
        b.obsp.clear()
        scw.pp.neighbors(b, distances=convert(adata.obsp["distances"]))
        assert_same_graph(b, adata, 1e-7)
    assert "use_rep" not in b.uns["neighbors"]["params"]
    with pytest.raises(ValueError, match="needs 19"):
        scw.pp.neighbors(b, 20, distances=adata.obsp["distances"])
    with pytest.raises(ValueError, match="expected"):
        scw.pp.neighbors(b, distances=full[:5])


def test_transformers(adata):
    b = adata.copy()
    t = KNeighborsTransformer(n_neighbors=10, metric="manhattan")
    scw.pp.neighbors(adata, transformer=t)
    scw.pp.neighbors(b, n_neighbors=10, metric="manhattan")
    assert_same_graph(adata, b)
    assert adata.uns["neighbors"]["params"]["n_neighbors"] == 10
    assert hasattr(t, "_fit_method")
    scw.pp.neighbors(adata, transformer="sklearn")
    assert adata.uns["neighbors"]["params"]["algorithm"] == "brute"
    # metrics and functions that only scikit-learn knows
    scw.pp.neighbors(adata, metric=lambda x, y: float(np.abs(x - y).sum()), n_neighbors=10)
    assert_same_graph(adata, b, 2e-5)
    scw.pp.neighbors(adata, metric="dice")


@pytest.mark.parametrize("metric", ["euclidean", "manhattan", "chebyshev", "jaccard", "hamming"])
def test_pynndescent_by_name(adata, metric):
    if metric in ("jaccard", "hamming"):
        adata.X = (adata.X > 1).astype(np.float32) * (np.arange(20) + 1)
    b = adata.copy()
    for m, x in ((scw, adata), (sc, b)):
        m.pp.neighbors(x, 10, transformer="pynndescent", metric=metric)
    d = sorted_rows(adata.obsp["distances"])
    e = sorted_rows(b.obsp["distances"])[:, 1:10]  # the cell itself, and one neighbour more
    assert np.isclose(d, e, rtol=1e-5, atol=1e-5).mean() > 0.9  # theirs is approximate
    assert (d <= e + 1e-5).all()


WEIGHTS = np.linspace(0.1, 3, 20)
OF_SCIKIT = [
    ("dice", {}),
    (lambda x, y: float(np.abs(x - y).sum()), {}),
    ("minkowski", {"p": 3, "w": WEIGHTS}),
    ("minkowski", {"p": 0.5}),
    ("minkowski", {"p": np.inf}),
    ("hamming", {"w": WEIGHTS}),
]


@pytest.mark.parametrize("metric, kwds", OF_SCIKIT)
@pytest.mark.parametrize("knn", [True, False])
def test_metrics_of_scikit_learn(metric, kwds, knn):
    x = cells(80)
    a = ad.AnnData(np.round(x) if metric == "hamming" else x * (np.abs(x) > 1))
    b = a.copy()
    for m, x in ((scw, a), (sc, b)):
        m.pp.neighbors(x, 8, knn=knn, method="gauss", metric=metric, metric_kwds=kwds)
    if knn:
        d, e = sorted_rows(a.obsp["distances"]), sorted_rows(b.obsp["distances"])
    else:
        d, e = a.obsp["distances"], b.obsp["distances"]
        assert d.dtype == a.obsp["connectivities"].dtype == np.float32
        np.testing.assert_allclose(a.obsp["connectivities"], b.obsp["connectivities"], rtol=2e-4, atol=1e-6)
    np.testing.assert_allclose(d, e, rtol=1e-5, atol=1e-5)
    assert d.max() > 0
    assert a.uns["neighbors"]["params"]["metric"] == metric
    if metric == "minkowski" and "w" not in kwds:
        c = scw.pp.neighbors(a, 8, knn=knn, method="gauss", metric="lp", metric_kwds=kwds, copy=True)
        assert abs(c.obsp["connectivities"] - a.obsp["connectivities"]).max() == 0


@pytest.mark.parametrize("method", ["gauss", "umap"])
@pytest.mark.parametrize("k", [1, 2, 9])
def test_all_that_a_transformer_finds(adata, method, k):
    b, c = adata.copy(), adata.copy()
    t = KNeighborsTransformer(n_neighbors=k, algorithm="ball_tree")  # k cells beside the cell itself
    scw.pp.neighbors(adata, transformer=t, method=method)
    sc.pp.neighbors(b, transformer=t, method=method)
    d, theirs = adata.obsp["distances"], b.obsp["distances"].copy()
    theirs.eliminate_zeros()  # the cells themselves
    assert d.nnz == theirs.nnz == 600 * k
    assert abs(d - theirs).max() < 1e-5
    assert (np.diff(d.data.reshape(600, k)) >= 0).all()
    assert adata.uns["neighbors"]["params"]["n_neighbors"] == k
    if method == "umap":
        assert_same_graph(adata, b)
        return
    # The same edges. scanpy takes the widths from the columns in order, not from the nearest cells, of such a graph:
    # its weights are right where it searches itself (with few neighbours they are 0 or NaN here).
    if k == 9:
        edges = b.obsp["connectivities"] > 0
        edges = (edges + edges.T).tolil()
        edges.setdiag(False)
        assert ((adata.obsp["connectivities"] > 0) != edges.tocsr()).nnz == 0
    sc.pp.neighbors(c, n_neighbors=k + 1, method="gauss")
    assert_same_graph(adata, c)


def test_a_transformer_that_finds_more_for_some():
    class Some(KNeighborsTransformer):
        def fit_transform(self, x, y=None):
            graph = super().fit_transform(x).tolil()
            graph[3, 100:110] = 50.0
            return graph.tocsr()

    a, b = ad.AnnData(cells()), ad.AnnData(cells())
    scw.pp.neighbors(a, transformer=Some(n_neighbors=9), method="gauss")
    scw.pp.neighbors(b, transformer=KNeighborsTransformer(n_neighbors=9), method="gauss")
    assert a.obsp["distances"].nnz == b.obsp["distances"].nnz + 10
    assert_same_graph(a, b, 1e-7)
    # Where we left the search to scikit-learn every row has its n_neighbors - 1, whatever a row of ties gives.
    c = ad.AnnData(np.repeat(cells(20), 30, axis=0))
    scw.pp.neighbors(c, 10, metric="dice")
    assert (np.diff(c.obsp["distances"].indptr) == 9).all()


def test_slots(adata):
    before = adata.copy()
    scw.pp.neighbors(adata, key_added="nn")
    assert set(adata.obsp) == {"nn_distances", "nn_connectivities"}
    assert adata.uns["nn"]["connectivities_key"] == "nn_connectivities"
    other = scw.pp.neighbors(before, copy=True)
    assert "neighbors" not in before.uns and "neighbors" in other.uns
    scw.pp.neighbors(before, method=None)
    assert set(before.obsp) == {"distances"}
    view = other[:100]
    scw.pp.neighbors(view)
    assert view.obsp["connectivities"].shape == (100, 100) and not view.is_view
    scw.pp.neighbors(other, rng=5)
    assert "random_state" not in other.uns["neighbors"]["params"]


def test_threads_and_reruns(adata):
    runs = []
    for threads in (1, 2, 3, 2):
        with scw.settings.override(n_threads=threads):
            a = adata.copy()
            scw.pp.neighbors(a)
        runs.append([a.obsp["distances"].data, a.obsp["distances"].indices, a.obsp["connectivities"].data])
    for run in runs[1:]:
        for x, y in zip(runs[0], run, strict=True):
            np.testing.assert_array_equal(x, y)


def test_edges():
    a, b = ad.AnnData(cells(10)), ad.AnnData(cells(10))
    scw.pp.neighbors(a)
    sc.pp.neighbors(b)
    assert a.uns["neighbors"]["params"]["n_neighbors"] == b.uns["neighbors"]["params"]["n_neighbors"] == 6
    assert_same_graph(a, b)
    a, b = ad.AnnData(cells(15)), ad.AnnData(cells(15))
    scw.pp.neighbors(a)  # k = n
    sc.pp.neighbors(b)
    assert_same_graph(a, b)
    one = ad.AnnData(cells(1))
    scw.pp.neighbors(one)
    assert one.obsp["connectivities"].nnz == 0
    same = ad.AnnData(np.ones((50, 3), np.float32))
    scw.pp.neighbors(same, 5)
    d = same.obsp["distances"]
    assert d.nnz == 200 and d.data.max() == 0
    assert all(i not in d[i].indices for i in range(50))
    assert np.isfinite(same.obsp["connectivities"].data).all()


def test_errors_leave_the_object_alone(adata):
    adata.X[3, 1] = np.nan
    with pytest.raises(scw.DataError, match="cell 3"):
        scw.pp.neighbors(adata)
    adata.X[3, 1] = 0
    for kwds, error, text in [
        ({"method": "foo"}, ValueError, "method"),
        ({"knn": False}, ValueError, "gauss"),
        ({"transformer": "foo"}, ValueError, "unknown transformer"),
        ({"algorithm": "foo"}, ValueError, "unknown algorithm"),
        ({"metric": "foo"}, ValueError, "metric"),
        ({"metric_kwds": {"q": 1}}, ValueError, "metric_kwds"),
        ({"metric": "minkowski", "metric_kwds": {"p": -1, "w": np.ones(20)}}, ValueError, "p of the minkowski"),
        ({"metric": "foo", "knn": False, "method": "gauss"}, ValueError, "metric"),
        ({"metric": lambda x, y: np.nan, "knn": False, "method": "gauss"}, scw.DataError, "must be finite"),
        ({"n_neighbors": 0}, ValueError, "n_neighbors"),
        ({"metric": "haversine"}, ValueError, "2 columns"),
        ({"algorithm_kwds": {"foo": 1}}, ValueError, "algorithm_kwds"),
    ]:
        with pytest.raises(error, match=text):
            scw.pp.neighbors(adata, **kwds)
    wide = ad.AnnData(cells(100, 60))  # of which the PCA would be taken
    for kwds, text in [
        ({"metric": "foo"}, "unknown metric 'foo'"),
        ({"metric": 3}, "unknown metric 3"),
        ({"algorithm": "foo"}, "unknown algorithm"),
        ({"metric_kwds": {"q": 1}}, "metric_kwds"),
        ({"metric": "minkowski", "metric_kwds": {"p": 0}}, "p of the minkowski"),
        ({"transformer": "foo"}, "unknown transformer"),
    ]:
        for more in ({}, {"knn": False, "method": "gauss"}):
            if "transformer" not in kwds or not more:
                with pytest.raises(ValueError, match=text):
                    scw.pp.neighbors(wide, **kwds, **more)
    assert not wide.uns and not wide.obsm and not wide.varm
    with pytest.raises(NotImplementedError, match="toarray"):
        scw.pp.neighbors(ad.AnnData(sp.csr_matrix(adata.X)), metric="correlation")
    assert not adata.uns and not adata.obsp


def test_scanpy_reads_it(adata):
    scw.pp.neighbors(adata)
    adata.obs["group"] = np.where(adata.X[:, 0] > np.median(adata.X[:, 0]), "a", "b")
    adata.obs["group"] = adata.obs["group"].astype("category")
    b = adata.copy()
    sc.pp.neighbors(b)
    for x in (adata, b):
        sc.tl.paga(x, groups="group")
        sc.tl.diffmap(x, n_comps=3)
    np.testing.assert_allclose(
        adata.uns["paga"]["connectivities"].toarray(), b.uns["paga"]["connectivities"].toarray(), rtol=1e-5
    )
    np.testing.assert_allclose(adata.uns["diffmap_evals"], b.uns["diffmap_evals"], rtol=1e-4)
    sc.tl.umap(adata[:100].copy(), maxiter=5)


def test_pbmc3k(shared_data):
    path = shared_data / "pbmc3k" / "pbmc3k_raw.h5ad"
    if not path.exists():
        pytest.skip("pbmc3k not found")
    a = ad.read_h5ad(path)
    sc.pp.normalize_total(a)
    sc.pp.log1p(a)
    sc.pp.pca(a)
    b = a.copy()
    scw.pp.neighbors(a)
    sc.pp.neighbors(b)
    np.testing.assert_allclose(sorted_rows(a.obsp["distances"]), sorted_rows(b.obsp["distances"]), rtol=1e-5)
    assert_same_graph(a, b)


def test_nn_descent_reports_its_recall():
    x = cells(9500, 20, seed=4)
    exact, a = ad.AnnData(x), ad.AnnData(x.copy())
    scw.pp.neighbors(exact)
    scw.pp.neighbors(a, algorithm="nn_descent", algorithm_kwds={"recall_sample": 9500})
    params = a.uns["neighbors"]["params"]
    assert params["algorithm"] == "nn_descent" and params["recall_cells"] == 9500
    mine, true = (v.obsp["distances"].indices.reshape(9500, 14) for v in (a, exact))
    recall = np.mean([np.isin(t, m).mean() for t, m in zip(true, mine, strict=True)])
    assert recall >= 0.98
    assert abs(recall - params["recall"]) < 1e-12
    # the names of rapids-singlecell and scanpy run too
    for option in ({"algorithm": "cagra"}, {"transformer": "pynndescent"}):
        scw.pp.neighbors(a, **option)
        assert a.uns["neighbors"]["params"]["algorithm"] == "brute"
