from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
import scipy.sparse as sp
from conftest import dense, simulated_counts

import scwarp as scw

ALL = ["sum", "mean", "var", "count_nonzero", "sq_sum", "median"]


@pytest.fixture
def data() -> ad.AnnData:
    a = ad.AnnData(simulated_counts(300, 40, seed=2) * np.float32(0.37))
    a.obs_names = [f"cell{i}" for i in range(a.n_obs)]
    a.var_names = [f"gene{i}" for i in range(a.n_vars)]
    r = np.random.default_rng(0)
    a.obs["type"] = pd.Categorical.from_codes(r.integers(0, 4, 300), ["t10", "t2", "t1", "t0"])
    a.obs["batch"] = r.choice(["x", "y", "z"], 300)
    a.var["family"] = r.choice(["mt", "rp", "no"], 40)
    a.obs["good"] = r.random(300) < 0.6
    return a


def compare(a: ad.AnnData, b: ad.AnnData) -> None:
    assert a.obs_names.tolist() == b.obs_names.tolist()
    assert a.var_names.tolist() == b.var_names.tolist()
    pd.testing.assert_frame_equal(a.obs, b.obs, check_index_type=False)
    assert a.X is None
    for name in b.layers:
        np.testing.assert_allclose(dense(a.layers[name]), dense(b.layers[name]), rtol=1e-6, atol=1e-9, err_msg=name)


@pytest.mark.parametrize("by", ["type", ["type", "batch"], ["batch", "type"]])
def test_equals_scanpy(data, any_layout, by):
    a = ad.AnnData(any_layout(sp.csr_matrix(data.X)), obs=data.obs, var=data.var)
    func = ["sum", "mean", "var", "count_nonzero", "median"]
    b = a.copy()
    if isinstance(b.X, sp.sparray):  # which scanpy 1.11 does not take here
        b.X = sp.csr_matrix(b.X)
    compare(scw.get.aggregate(a, by, func), sc.get.aggregate(b, by, func))
    assert set(scw.get.aggregate(a, by, "mean").layers) == {"mean"}


def test_other_matrices_equal_scanpy(data):
    data.layers["twice"] = data.X * 2
    data.obsm["pca"] = np.random.default_rng(0).normal(size=(300, 5))
    data.obsm["frame"] = pd.DataFrame(data.obsm["pca"], index=data.obs_names, columns=list("abcde"))
    data.varm["loadings"] = np.random.default_rng(0).normal(size=(40, 3))
    for kwargs in ({"layer": "twice"}, {"obsm": "pca"}, {"obsm": "frame"}):
        compare(scw.get.aggregate(data, "type", ["mean", "var"], **kwargs),
                sc.get.aggregate(data, "type", ["mean", "var"], **kwargs))  # fmt: skip
    for kwargs in ({"varm": "loadings"}, {"axis": "var"}, {"axis": 1, "layer": "twice"}):
        a = scw.get.aggregate(data, "family", ["sum", "mean"], **kwargs)
        b = sc.get.aggregate(data, "family", ["sum", "mean"], **kwargs)
        compare(a.T, b.T)
    for acc, kwargs in (("layers.twice", {"layer": "twice"}), ("obsm.pca", {"obsm": "pca"}), ("X", {})):
        compare(scw.get.aggregate(data, "type", "sum", acc=acc), scw.get.aggregate(data, "type", "sum", **kwargs))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_exact(data, dtype):
    x = data.X.astype(dtype)
    x.data[::7] *= -1
    x.data[3] = 0  # a stored zero
    data.X = x
    data.obs.loc[data.obs_names[:5], "type"] = np.nan
    got = scw.get.aggregate(data, "type", ALL, mask="good")
    full = dense(x).astype(np.float64)
    for g, name in enumerate(["t10", "t2", "t1", "t0"]):
        part = full[((data.obs["type"] == name) & data.obs["good"]).to_numpy()]
        for f, want in (
            ("sum", part.sum(0)),
            ("mean", part.mean(0)),
            ("var", part.var(0, ddof=1)),
            ("sq_sum", (part**2).sum(0)),
            ("median", np.median(part, 0)),
            ("count_nonzero", (part != 0).sum(0)),
        ):
            np.testing.assert_allclose(got.layers[f][g], want, rtol=1e-11, atol=1e-11, err_msg=f)
    assert got.layers["count_nonzero"].dtype == np.int32


def test_far_from_zero():
    """No cancellation: the variance of values of 1e6 + N(0, 1)."""
    x = 1e6 + np.random.default_rng(0).normal(size=(100, 3))
    a = ad.AnnData(x, obs=pd.DataFrame({"g": ["a", "b"] * 50}, index=[str(i) for i in range(100)]))
    got = scw.get.aggregate(a, "g", "var").layers["var"]
    np.testing.assert_allclose(got[0], x[::2].var(0, ddof=1), rtol=1e-6)


def test_nan_and_small_groups(data):
    x = dense(data.X).astype(np.float64)
    x[10, 3], x[11, 4], x[12, 4] = np.nan, np.inf, -np.inf
    data.X = x
    data.obs["type"] = pd.Categorical(["lonely"] + ["a"] * 150 + ["b"] * 149)
    got = scw.get.aggregate(data, "type", ALL)
    assert got.obs_names.tolist() == ["a", "b", "lonely"]
    assert np.isnan(got.layers["var"][2]).all()
    np.testing.assert_array_equal(got.layers["mean"][2], x[0])
    for f in ("sum", "mean", "var", "sq_sum", "median"):
        assert np.isnan(got.layers[f][0, 3])
    assert np.isnan(got.layers["sum"][0, 4]) and got.layers["sq_sum"][0, 4] == np.inf
    np.testing.assert_allclose(got.layers["sum"][1], x[151:].sum(0), rtol=1e-12)


def test_sparse_output(data):
    got = scw.get.aggregate(data, "type", ["sum", "count_nonzero", "var"], return_sparse=True)
    want = scw.get.aggregate(data, "type", ["sum", "count_nonzero", "var"])
    for f in got.layers:
        assert sp.issparse(got.layers[f])
        np.testing.assert_allclose(got.layers[f].toarray(), want.layers[f])
    assert got.layers["count_nonzero"].dtype == np.float32
    data.X = dense(data.X)
    assert isinstance(scw.get.aggregate(data, "type", "sum", return_sparse=True).layers["sum"], np.ndarray)


def test_same_bits_for_threads_and_order(data):
    results = []
    order = np.random.default_rng(1).permutation(300)
    for threads, a in ((1, data), (2, data), (3, data[order].copy())):
        with scw.settings.override(n_threads=threads):
            r = scw.get.aggregate(a, ["type", "batch"], ALL)
            results.append({f: r.layers[f].tobytes() for f in ALL})
    assert results[0] == results[1] == results[2]


def test_errors(data):
    data.obsm["pca"] = np.zeros((300, 2))
    data.varm["pcs"] = np.zeros((40, 2))
    for kwargs, error, match in (
        ({"func": "mode"}, ValueError, "func"),
        ({"by": []}, ValueError, "empty"),
        ({"by": "nothing"}, KeyError, "no column"),
        ({"layer": "x", "obsm": "pca"}, ValueError, "only one"),
        ({"obsm": "pca", "axis": "var", "by": "family"}, ValueError, "obsm"),
        ({"varm": "pcs", "axis": "obs"}, ValueError, "varm"),
        ({"acc": "X", "layer": "a"}, TypeError, "acc"),
        ({"acc": "nothing.here"}, ValueError, "acc"),
        ({"mask": np.ones(3, bool)}, ValueError, "mask"),
        ({"axis": 2}, ValueError, "axis"),
    ):
        with pytest.raises(error, match=match):
            scw.get.aggregate(data, **({"by": "type", "func": "sum"} | kwargs))
