"""rank_genes_groups of CuPy matrices: the slots, and the bits, of the same call on the host."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from conftest import simulated_counts
from gpu import TO_GPU, csp

import scwarp as scw

METHODS = ["wilcoxon", "wilcoxon_binned"]


def logged(cells=800, genes=120, groups=5, dtype="float32", seed=3):
    x = sp.csr_matrix(simulated_counts(cells, genes, seed=seed)).astype(dtype)
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, groups, cells)
    scale = sp.diags(rng.uniform(0.5, 2, cells) * (1 + 0.2 * labels))
    x = sp.csr_matrix(scale @ x).astype(dtype)
    x.data = np.log1p(x.data)
    a = ad.AnnData(x, obs={"g": pd.Categorical([f"c{v}" for v in labels])})
    a.obs_names = a.obs_names.astype(str)
    a.uns["log1p"] = {"base": None}
    return a


def both(a, layout, **options):
    """The slot after the same call on the host and on the device."""
    host, device = a.copy(), a.copy()
    if layout == "dense":
        host.X = host.X.toarray()
    device.X = TO_GPU[layout](a.X)
    for x in (host, device):
        scw.tl.rank_genes_groups(x, "g", **options)
    key = options.get("key_added", "rank_genes_groups")
    return host.uns[key], device.uns[key]


def assert_equal(want, got):
    assert want.keys() == got.keys()
    for key, value in want.items():
        if key == "params":
            assert value == got[key]
        elif isinstance(value, pd.DataFrame):
            pd.testing.assert_frame_equal(value, got[key])
        else:
            assert isinstance(got[key], np.ndarray) and got[key].dtype == value.dtype
            np.testing.assert_array_equal(got[key], value)


@pytest.mark.parametrize("layout", list(TO_GPU))
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("method", METHODS)
def test_bits_of_the_host(method, dtype, layout):
    want, got = both(logged(dtype=dtype), layout, method=method, tie_correct=True, pts=True)
    assert_equal(want, got)
    assert float(got["scores"]["c4"][0]) > 1


@pytest.mark.parametrize(
    "options",
    [
        {"reference": "c1"},
        {"reference": "c1", "tie_correct": True, "groups": ["c0", "c3"]},
        {"groups": ["c4", "c0"], "n_genes": 7, "rankby_abs": True, "key_added": "mine"},
        {"use_continuity": True, "return_u_values": True, "corr_method": "bonferroni"},
        {"mean_in_log_space": False, "pts": True, "reference": "c0"},
        {"mask_var": np.arange(120) % 3 == 0},
    ],
    ids=["reference", "groups", "order", "u_values", "count_space", "mask"],
)
@pytest.mark.parametrize("method", METHODS)
def test_options(method, options):
    assert_equal(*both(logged(), "csr", method=method, **options))


def test_layer_and_raw():
    a = logged()
    other = logged(seed=9)
    want, got = a.copy(), a.copy()
    want.layers["l"] = other.X
    got.X, got.layers["l"] = csp.csr_matrix(a.X), csp.csr_matrix(other.X)
    for x in (want, got):
        x.raw = x.copy()
        x.X = x.layers["l"] * 2
        scw.tl.rank_genes_groups(x, "g", method="wilcoxon", key_added="raw")
        scw.tl.rank_genes_groups(x, "g", method="wilcoxon", layer="l", key_added="layer")
        scw.tl.rank_genes_groups(x, "g", method="wilcoxon", use_raw=False, key_added="x")
    for key in ("raw", "layer", "x"):
        assert_equal(want.uns[key], got.uns[key])
    assert not np.array_equal(got.uns["raw"]["scores"]["c0"], got.uns["layer"]["scores"]["c0"])


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("reference", ["rest", "c0"])
def test_ties_zeros_constants_and_signs(method, reference):
    a = logged(cells=400, genes=40)
    x = a.X.toarray()
    x[:, 0] = 0
    x[:, 1] = 0.7
    x[:, 2] = np.round(x[:, 2] * 3)
    x[:, 3] -= 1
    x[:, 4] = np.where(x[:, 4] > 0, x[:, 4], -0.0)
    a.X = sp.csr_matrix(x)
    a.X.data[::11] = 0  # stored zeros
    want, got = both(a, "csr", method=method, reference=reference, tie_correct=True, pts=True)
    assert_equal(want, got)
    group = "c1"
    rows = {n: i for i, n in enumerate(got["names"][group])}
    assert got["scores"][group][rows["0"]] == 0 and got["pvals"][group][rows["0"]] == 1


@pytest.mark.parametrize("n_groups", [40, 300])
@pytest.mark.parametrize("reference", ["rest", "c2"])
def test_many_groups(n_groups, reference):
    a = logged(cells=1500, genes=25)
    a.obs["g"] = pd.Categorical([f"c{i % n_groups}" for i in range(1500)])
    assert_equal(*both(a, "csr", method="wilcoxon", reference=reference, tie_correct=True))


def test_groups_of_one_cell():
    a = logged()
    labels = a.obs["g"].astype(str).to_numpy()
    labels[5] = "alone"
    a.obs["g"] = pd.Categorical(labels)
    with pytest.raises(ValueError, match=r"alone \(1\)"):
        both(a, "csr", method="wilcoxon")
    want, got = both(a, "csr", method="wilcoxon", skip_empty_groups=True)
    assert_equal(want, got)
    assert "alone" not in got["names"].dtype.names


def test_genes_longer_than_a_tile_and_repeats():
    rng = np.random.default_rng(0)
    x = np.where(rng.random((90_000, 6)) < 0.9, rng.gamma(2, size=(90_000, 6)), 0).astype(np.float32)
    x[:, 1] = np.round(x[:, 1])
    a = ad.AnnData(sp.csr_matrix(x), obs={"g": pd.Categorical(rng.integers(0, 4, 90_000).astype(str))})
    want, got = both(a, "csr", method="wilcoxon", tie_correct=True)
    assert_equal(want, got)
    for _ in range(3):
        assert_equal(both(a, "csr", method="wilcoxon", tie_correct=True)[1], got)


def test_bad_values():
    a = logged()
    a.X.data[7] = np.nan
    gene = a.X.indices[7]
    with pytest.raises(scw.DataError, match=f"gene {gene} has NaN"):
        both(a, "csr", method="wilcoxon")
    b = a.copy()
    b.X = csp.csr_matrix(a.X)
    with pytest.raises(scw.DataError, match=f"gene {gene} has NaN"):
        scw.tl.rank_genes_groups(b, "g", method="wilcoxon")


@pytest.mark.parametrize("layout", list(TO_GPU))
@pytest.mark.parametrize("groups", ["all", ["c3", "c1", "c2"], ["c4", "c0"]], ids=["all", "three", "two"])
def test_logreg(layout, groups):
    # A strong penalty: how far two solutions may lie apart follows from it.
    want, got = both(logged(), layout, method="logreg", groups=groups, C=0.02, tol=2e-6)
    assert want.keys() == got.keys() and want["params"] == got["params"]
    assert want["scores"].dtype == got["scores"].dtype
    for name in want["scores"].dtype.names:
        x = dict(zip(want["names"][name], want["scores"][name], strict=True))
        y = dict(zip(got["names"][name], got["scores"][name], strict=True))
        values = np.array(list(x.values()))
        np.testing.assert_allclose([y[k] for k in x], values, atol=1e-3 * np.abs(values).max())
        assert np.all(np.diff(got["scores"][name]) <= 0)
    again = both(logged(), layout, method="logreg", groups=groups, C=0.02, tol=2e-6)[1]
    assert_equal(got, again)


def test_logreg_under_its_old_name():
    a = logged()
    a.X = csp.csr_matrix(a.X)
    with pytest.warns(FutureWarning, match="deprecated"):
        scw.tl.rank_genes_groups_logreg(a, "g", n_genes=5, key_added="old")
    scw.tl.rank_genes_groups(a, "g", method="logreg", n_genes=5)
    assert_equal(a.uns["rank_genes_groups"], a.uns["old"])
