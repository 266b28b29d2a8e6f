"""Leiden against igraph (live) on real, simulated, disconnected and isolated-vertex graphs."""

from __future__ import annotations

import itertools
import random

import anndata as ad
import igraph as ig
import numpy as np
import pytest
import scanpy as sc
import scipy.sparse as sp
from scipy.spatial import cKDTree

import scwarp as scw

RESOLUTIONS = [0.05, 0.1, 0.2, 0.5, 1, 1.5, 2, 3, 5]


def knn_graph(n: int, seed: int, n_clusters: int = 12, dim: int = 10, k: int = 12) -> sp.csr_matrix:
    """Symmetric kNN graph of overlapping Gaussian clusters with smooth weights."""
    r = np.random.default_rng(seed)
    x = r.normal(0, 2.2, (n_clusters, dim))[r.choice(n_clusters, n, p=r.dirichlet(np.ones(n_clusters) * 2))]
    x += r.normal(0, 1, (n, dim))
    d = ((x[:, None] - x[None]) ** 2).sum(2) if n <= 1500 else (x**2).sum(1)[:, None] + (x**2).sum(1) - 2 * x @ x.T
    np.fill_diagonal(d, np.inf)
    j = np.argpartition(d, k, axis=1)[:, :k]
    w = np.exp(-np.take_along_axis(d, j, 1) / np.take_along_axis(d, j, 1).max(1, keepdims=True))
    g = sp.csr_matrix((w.ravel().astype(np.float32), (np.repeat(np.arange(n), k), j.ravel())), (n, n))
    return g.maximum(g.T).tocsr()


def planted(n: int, groups: int, p_in: float, p_out: float, seed: int) -> sp.csr_matrix:
    r = np.random.default_rng(seed)
    z = np.arange(n) % groups
    a = np.triu(r.random((n, n)) < np.where(z[:, None] == z, p_in, p_out), 1)
    w = (a * r.uniform(0.2, 1, (n, n))).astype(np.float32)
    return sp.csr_matrix(w + w.T)


def blocks(*graphs: sp.csr_matrix) -> sp.csr_matrix:
    return sp.block_diag(graphs).tocsr().astype(np.float32)


def data_of(graph: sp.csr_matrix) -> ad.AnnData:
    a = ad.AnnData(sp.csr_matrix((graph.shape[0], 1), dtype=np.float32))
    a.obsp["connectivities"] = graph
    a.uns["neighbors"] = {"connectivities_key": "connectivities", "distances_key": "distances", "params": {}}
    return a


def igraph_of(graph: sp.csr_matrix) -> ig.Graph:
    c = graph.tocoo()
    g = ig.Graph(n=graph.shape[0], edges=np.c_[c.row, c.col], directed=False)  # each edge twice, as scanpy does
    g.es["weight"] = c.data.astype(float)
    return g


def quality(g: ig.Graph, labels, resolution: float = 1) -> float:
    return g.modularity(list(labels), weights="weight", resolution=resolution, directed=False)


def codes(column) -> np.ndarray:
    return column.astype(str).astype(int).to_numpy()


def n_parts(graph: sp.csr_matrix, labels: np.ndarray) -> int:
    c = graph.tocoo()
    keep = labels[c.row] == labels[c.col]
    inside = sp.csr_matrix((c.data[keep], (c.row[keep], c.col[keep])), graph.shape)
    return sp.csgraph.connected_components(inside, directed=False)[0]


def large_knn_graph() -> sp.csr_matrix:
    """More vertices than are clustered one by one."""
    r = np.random.default_rng(15)
    n, k = 12000, 12
    x = r.normal(0, 1.5, (16, 8))[r.choice(16, n, p=r.dirichlet(np.ones(16) * 2))] + r.normal(0, 1, (n, 8))
    d, j = cKDTree(x).query(x, k + 1)
    w = np.exp(-(d[:, 1:] ** 2) / d[:, -1:] ** 2).astype(np.float32)
    g = sp.csr_matrix((w.ravel(), (np.repeat(np.arange(n), k), j[:, 1:].ravel())), (n, n))
    return blocks(g.maximum(g.T), sp.csr_matrix((30, 30)), knn_graph(500, 16))


GRAPHS = {
    "large": lambda _: large_knn_graph(),
    "knn": lambda _: knn_graph(3000, 1),
    "planted": lambda _: planted(1200, 12, 0.2, 0.02, 2),
    "disconnected": lambda _: blocks(knn_graph(700, 3), planted(500, 6, 0.2, 0.02, 4), knn_graph(300, 5)),
    "isolated": lambda _: blocks(sp.csr_matrix((80, 80)), knn_graph(900, 6), sp.csr_matrix((40, 40))),
    "pbmc3k": lambda d: ad.read_h5ad(d / "pbmc3k" / "pbmc3k_processed.h5ad").obsp["connectivities"],
    "pbmc68k": lambda d: ad.read_h5ad(d / "pbmc68k_reduced" / "pbmc68k_reduced.h5ad").obsp["connectivities"],
}


@pytest.mark.parametrize("name", list(GRAPHS))
def test_as_good_as_igraph(name, request):
    graph = GRAPHS[name](request.getfixturevalue("shared_data") if name.startswith("pbmc") else None)
    g, a = igraph_of(graph), data_of(graph)
    scw.tl.leiden(a, RESOLUTIONS)
    to_lowest, to_median, counts = [], [], []
    for i, resolution in enumerate(RESOLUTIONS):
        labels = codes(a.obs[f"leiden_{resolution}"])
        ours = quality(g, labels, resolution)
        np.testing.assert_allclose(a.uns["leiden"]["modularity"][i], ours, rtol=1e-9, atol=1e-12)
        theirs, singletons = [], []
        for seed in range(5):
            ig.set_random_number_generator(random.Random(seed))
            p = g.community_leiden("modularity", weights="weight", resolution=resolution, n_iterations=2)
            theirs.append(quality(g, p.membership, resolution))
            singletons.append(sum(s == 1 for s in p.sizes()))
        ig.set_random_number_generator(None)
        to_lowest.append(ours - min(theirs))
        to_median.append(ours - np.median(theirs))
        sizes = np.bincount(labels)
        counts.append(len(sizes))
        assert n_parts(graph, labels) == len(sizes), "a cluster is not connected"
        assert (np.diff(sizes) <= 0).all()
        np.testing.assert_array_equal(a.uns["leiden"]["cluster_sizes"][f"leiden_{resolution}"], sizes)
        assert (sizes == 1).sum() <= max(singletons) + 2
    assert min(to_lowest) >= -1e-3, to_lowest
    assert np.mean(to_median) >= -1e-3, to_median
    assert all(x <= y + 1 for x, y in itertools.pairwise(counts)), counts
    assert counts[-1] > counts[0]


def test_modularity_of_any_labels_equals_igraph():
    r = np.random.default_rng(0)
    graph = knn_graph(500, 7)
    loops = graph.tolil()
    loops.setdiag(r.random(500) * (r.random(500) < 0.3))
    from scwarp import _core
    from scwarp._context import make_context
    from scwarp._matrix import pack

    ctx = make_context(op="test")
    for x in (graph, loops.tocsr().astype(np.float32), graph.astype(np.float64), sp.triu(graph).tocsr()):
        g = igraph_of(x)
        for resolution in (0, 0.3, 1, 4):
            labels = r.integers(0, 20, 500).astype(np.int32)
            got = _core.tl.modularity(ctx, pack(x, "test").arg, labels, resolution, True)
            np.testing.assert_allclose(got, quality(g, labels, resolution), rtol=1e-11, atol=1e-13)
            unweighted = g.modularity(list(labels), resolution=resolution, directed=False)
            got = _core.tl.modularity(ctx, pack(x, "test").arg, labels, resolution, False)
            np.testing.assert_allclose(got, unweighted, rtol=1e-11, atol=1e-13)


def test_finds_planted_groups():
    a = data_of(planted(900, 9, 0.3, 0.01, 8))
    scw.tl.leiden(a)
    pairs = set(zip(codes(a.obs["leiden"]), np.arange(900) % 9, strict=True))
    assert len(pairs) == 9
    scw.tl.leiden(a, use_weights=False, key_added="plain")
    assert a.obs["plain"].nunique() == 9
    assert a.uns["plain"]["modularity"] != a.uns["leiden"]["modularity"]


def test_same_bits_for_any_number_of_threads():
    a = data_of(knn_graph(6000, 9))
    want = None
    for threads in (1, 2, 3, 1, 2):
        with scw.settings.override(n_threads=threads):
            scw.tl.leiden(a, 1)
            scw.tl.leiden(a, [0.5, 1, 2], key_added="many")
        got = np.c_[[codes(a.obs[c]) for c in ("leiden", "many_0.5", "many_1", "many_2")]]
        want = got if want is None else want
        np.testing.assert_array_equal(got, want)
        np.testing.assert_array_equal(got[0], got[2])
    scw.tl.leiden(a, 20, key_added="zero")
    scw.tl.leiden(a, 20, random_state=1, key_added="one")
    assert (codes(a.obs["zero"]) != codes(a.obs["one"])).any()
    with scw.settings.override(n_threads=2):
        scw.tl.leiden(a, 1, rng=np.random.default_rng(3), key_added="r")
    assert "random_state" not in a.uns["r"]["params"]


def test_slots_as_scanpy():
    graph = knn_graph(800, 10)
    a, b = data_of(graph), data_of(graph)
    scw.tl.leiden(a, 0.7, n_iterations=2)
    sc.tl.leiden(b, 0.7, n_iterations=2, flavor="igraph", directed=False)
    assert a.uns["leiden"]["params"] == b.uns["leiden"]["params"]
    x, y = a.obs["leiden"], b.obs["leiden"]
    assert x.dtype.name == y.dtype.name == "category"
    assert list(x.cat.categories) == [str(i) for i in range(x.nunique())]
    assert x.cat.categories.dtype == y.cat.categories.dtype

    c = scw.tl.leiden(a, [1.0], copy=True, key_added="one")
    assert "one" not in a.obs and "one" in c.obs
    assert isinstance(c.uns["one"]["modularity"], float)
    v = a[:400]
    scw.tl.leiden(v)
    assert not v.is_view and len(v.obs["leiden"]) == 400


def test_file_round_trip(tmp_path):
    a = data_of(knn_graph(300, 11))
    scw.tl.leiden(a, [0.5, 1])
    scw.tl.leiden(a, 1, key_added="x")
    a.write_h5ad(tmp_path / "a.h5ad")
    b = ad.read_h5ad(tmp_path / "a.h5ad")
    assert list(b.obs["leiden_0.5"]) == list(a.obs["leiden_0.5"])
    np.testing.assert_array_equal(
        b.uns["leiden"]["cluster_sizes"]["leiden_1"], a.uns["leiden"]["cluster_sizes"]["leiden_1"]
    )
    assert b.uns["x"]["modularity"] == a.uns["x"]["modularity"]


def test_restrict_to_as_scanpy():
    a = data_of(planted(600, 6, 0.4, 0.01, 12))
    a.obs["g"] = [f"{i % 3}" for i in range(600)]
    a.obs["g"] = a.obs["g"].astype("category")
    b = a.copy()
    scw.tl.leiden(a, restrict_to=("g", ["0", "2"]))
    sc.tl.leiden(b, restrict_to=("g", ["0", "2"]), flavor="igraph", directed=False)
    assert set(a.obs["leiden_R"]) == set(b.obs["leiden_R"]) == {"1", "0-2,0", "0-2,1", "0-2,2", "0-2,3"}
    assert list(a.obs["leiden_R"].cat.categories) == list(b.obs["leiden_R"].cat.categories)
    assert set(a.uns) == set(b.uns)
    scw.tl.leiden(a, restrict_to=("g", ["1"]), key_added="mine")
    assert set(a.obs["mine"]) == {"0", "2", "1,0", "1,1"}
    with pytest.raises(ValueError, match="'7' is not a category"):
        scw.tl.leiden(a, restrict_to=("g", ["7"]))


@pytest.mark.parametrize("n", [0, 1, 2])
def test_no_edges(n):
    a = data_of(sp.csr_matrix((n, n), dtype=np.float32))
    scw.tl.leiden(a)
    assert list(a.obs["leiden"]) == [str(i) for i in range(n)]
    assert a.uns["leiden"]["modularity"] == 0


def test_which_graph():
    a = data_of(planted(200, 2, 0.3, 0.01, 13))
    a.obsp["other"] = planted(200, 5, 0.5, 0.01, 13)
    a.uns["n2"] = {"connectivities_key": "other"}
    for options in ({"obsp": "other"}, {"neighbors_key": "n2"}, {"adjacency": a.obsp["other"]},
                    {"adjacency": a.obsp["other"].tocsc()}, {"adjacency": a.obsp["other"].toarray()}):  # fmt: skip
        scw.tl.leiden(a, **options)
        assert a.obs["leiden"].nunique() == 5
    scw.tl.leiden(a)
    assert a.obs["leiden"].nunique() == 2


def test_graph_of_an_earlier_call():
    """After neighbors(method=None) what obsp holds is not the graph of these neighbours."""
    a = ad.AnnData(np.random.default_rng(0).normal(size=(100, 5)).astype(np.float32))
    scw.pp.neighbors(a)
    scw.pp.neighbors(a, 5, method=None)
    for run in (scw.tl.leiden, scw.tl.umap):
        with pytest.raises(ValueError, match="distances only"):
            run(a)
    assert "connectivities" in a.obsp and "leiden" not in a.obs
    scw.tl.leiden(a, obsp="connectivities")
    for entry in ({}, {"params": {}}, {"distances_key": "distances", "connectivities": a.obsp["connectivities"]}):
        a.uns["neighbors"] = entry
        scw.tl.leiden(a)


def test_errors_leave_the_object():
    a = data_of(knn_graph(100, 14))
    bad = a.obsp["connectivities"].copy()
    bad.data[5] = -1
    nan = a.obsp["connectivities"].copy()
    nan.data[7] = np.nan
    for error, match, options in (
        (
            scw.DataError,
            r"tl.leiden: edge weights must not be negative \(edge \(0, \d+\): got -1\)",
            {"adjacency": bad},
        ),
        (scw.DataError, "edge weights must be finite", {"adjacency": nan}),
        (ValueError, "resolution must be in", {"resolution": -1}),
        (ValueError, "resolution must be in", {"resolution": np.nan}),
        (ValueError, "empty sequence", {"resolution": []}),
        (ValueError, "equal values", {"resolution": [1, 1]}),
        (ValueError, "n_iterations must be positive", {"n_iterations": 0}),
        (ValueError, "theta must be positive", {"theta": 0}),
        (ValueError, "directed=True", {"directed": True}),
        (ValueError, "partition_type", {"partition_type": object}),
        (ValueError, "flavor", {"flavor": "x"}),
        (ValueError, "dtype", {"dtype": "int32"}),
        (ValueError, "not both", {"obsp": "connectivities", "neighbors_key": "neighbors"}),
        (ValueError, "run pp.neighbors", {"neighbors_key": "none"}),
        (ValueError, "the graph is", {"adjacency": sp.eye(3).tocsr()}),
        (ValueError, "objective_function", {"objective_function": "CPM"}),
        (TypeError, "unexpected arguments", {"node_sizes": 1}),
        (NotImplementedError, "use_dask", {"use_dask": True}),
    ):
        with pytest.raises(error, match=match):
            scw.tl.leiden(a, **options)
    assert "leiden" not in a.obs and "leiden" not in a.uns
