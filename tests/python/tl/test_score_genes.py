from __future__ import annotations

import anndata as ad
import numpy as np
import pytest
import scanpy as sc
import scipy.sparse as sp
from conftest import dense, simulated_counts

import scwarp as scw


@pytest.fixture
def data() -> ad.AnnData:
    a = ad.AnnData(simulated_counts(300, 900, seed=2))
    a.obs_names = [f"cell{i}" for i in range(a.n_obs)]
    a.var_names = [f"gene{i}" for i in range(a.n_vars)]
    sc.pp.normalize_total(a)
    sc.pp.log1p(a)
    return a


GENES = [f"gene{i}" for i in (5, 9, 33, 120, 121, 400, 777, 899)]


def both(data: ad.AnnData, genes=GENES, **kwargs) -> tuple[np.ndarray, np.ndarray]:
    a, b = data.copy(), data.copy()
    if isinstance(b.X, sp.sparray):  # which scanpy 1.11 does not take here
        b.X = sp.csr_matrix(b.X)
    scw.tl.score_genes(a, genes, **kwargs)
    sc.tl.score_genes(b, genes, **kwargs)
    name = kwargs.get("score_name", "score")
    assert a.obs[name].dtype == b.obs[name].dtype == np.float64
    return a.obs[name].to_numpy(), b.obs[name].to_numpy()


@pytest.mark.parametrize("kwargs", [
    {},
    {"random_state": 7},
    {"ctrl_as_ref": False},
    {"ctrl_size": 3, "n_bins": 10},
    {"gene_pool": [f"gene{i}" for i in range(900) if i % 3 or f"gene{i}" in GENES]},
    {"score_name": "other", "n_bins": 3},
    {"genes": [*GENES, "nothing"]},
    {"genes": "gene9"},
])  # fmt: skip
def test_equals_scanpy(data, kwargs):
    kwargs = dict(kwargs)
    x, y = both(data, kwargs.pop("genes", GENES), **kwargs)
    np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6)
    assert np.ptp(x) > 0


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_control_genes_are_scanpys(data, dtype):
    """The float64 mean over scanpy's own control genes, to rounding."""
    from scanpy.tools._score_genes import _check_score_genes_args, _score_genes_bins

    for x in (data.X.astype(dtype), dense(data.X).astype(dtype)):
        a = ad.AnnData(x, obs=data.obs, var=data.var)
        for seed in (0, 5):
            np.random.seed(seed)
            genes, pool, subset = _check_score_genes_args(a, GENES, None, layer=None, use_raw=False)
            control = set()
            for part in _score_genes_bins(genes, pool, ctrl_as_ref=True, ctrl_size=7, n_bins=25, get_subset=subset):
                control |= set(part)
            full = dense(x).astype(np.float64)
            columns = [a.var_names.get_indexer(list(names)) for names in (genes, sorted(control))]
            want = full[:, columns[0]].mean(1) - full[:, columns[1]].mean(1)
            scw.tl.score_genes(a, GENES, ctrl_size=7, random_state=seed)
            np.testing.assert_allclose(a.obs["score"], want, rtol=1e-12, atol=1e-14)


def test_pool_in_another_order(data):
    """All genes, in another order: the averages follow. scanpy is right where the matrix has that order itself."""
    order = np.random.default_rng(3).permutation(data.n_vars)
    want = data[:, order].copy()
    want.X = dense(want.X)
    sc.tl.score_genes(want, GENES, ctrl_size=5)
    for x in (data.X, dense(data.X)):
        a = ad.AnnData(x, obs=data.obs, var=data.var)
        scw.tl.score_genes(a, GENES, ctrl_size=5, gene_pool=data.var_names[order])
        np.testing.assert_allclose(a.obs["score"], want.obs["score"], rtol=1e-5, atol=1e-6)


def test_layouts_equal_scanpy(data, any_layout):
    a = ad.AnnData(any_layout(sp.csr_matrix(data.X)), obs=data.obs, var=data.var)
    x, y = both(a)
    np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6)


def test_nan_is_left_out(data):
    data.X.data[::50] = np.nan
    x, y = both(data)
    np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6)
    data.X = dense(data.X).astype(np.float64)
    x, y = both(data)
    np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6)


def test_raw_and_layers(data):
    data.raw = data
    data.layers["half"] = data.X * 0.5
    data.X = data.X * 3
    assert not np.allclose(*(both(data)[0], both(data, use_raw=False)[0]))
    for kwargs in ({}, {"use_raw": True}, {"use_raw": False}, {"layer": "half", "use_raw": False}):
        np.testing.assert_allclose(*both(data, **kwargs), rtol=1e-5, atol=1e-6)
    scw.tl.score_genes(data, GENES, layer="half")


def test_seeds(data):
    np.random.seed(3)
    scw.tl.score_genes(data, GENES, random_state=None, ctrl_size=5)
    x = data.obs["score"].copy()
    np.random.seed(3)
    sc.tl.score_genes(data, GENES, random_state=None, ctrl_size=5)
    np.testing.assert_allclose(x, data.obs["score"], rtol=1e-5, atol=1e-6)
    results = []
    for rng in (1, 1, 2):
        scw.tl.score_genes(data, GENES, rng=rng, ctrl_size=5)
        results.append(data.obs["score"].to_numpy().copy())
    assert (results[0] == results[1]).all() and not (results[0] == results[2]).all()
    with pytest.raises(TypeError, match="not both"):
        scw.tl.score_genes(data, GENES, rng=1, random_state=2)


def test_same_bits_for_any_number_of_threads(data):
    results = []
    for threads in (1, 2, 3):
        with scw.settings.override(n_threads=threads):
            scw.tl.score_genes(data, GENES)
            results.append(data.obs["score"].to_numpy().copy())
    assert (results[0] == results[1]).all() and (results[0] == results[2]).all()


def test_cell_cycle(data):
    s, g2m = GENES[:4], [*GENES[3:], "gene50"]
    a, b = data.copy(), data.copy()
    scw.tl.score_genes_cell_cycle(a, s_genes=s, g2m_genes=g2m, n_bins=10)
    sc.tl.score_genes_cell_cycle(b, s_genes=s, g2m_genes=g2m, n_bins=10)
    for name in ("S_score", "G2M_score"):
        np.testing.assert_allclose(a.obs[name], b.obs[name], rtol=1e-5, atol=1e-6)
    assert a.obs["phase"].tolist() == b.obs["phase"].tolist()
    assert a.obs["phase"].nunique() == 3
    c = scw.tl.score_genes_cell_cycle(data, s_genes=s, g2m_genes=g2m, n_bins=10, copy=True)
    assert c.obs["phase"].tolist() == a.obs["phase"].tolist() and "phase" not in data.obs
    with pytest.raises(TypeError, match="ctrl_size"):
        scw.tl.score_genes_cell_cycle(data, s_genes=s, g2m_genes=g2m, ctrl_size=5)


def test_errors_leave_the_object_alone(data):
    with pytest.raises(ValueError, match="No valid genes were passed for scoring"):
        scw.tl.score_genes(data, ["x", "y"])
    with pytest.raises(ValueError, match="reference set"):
        scw.tl.score_genes(data, GENES, gene_pool=["x"])
    with pytest.raises(RuntimeError, match="No control genes"):
        scw.tl.score_genes(data, GENES, gene_pool=GENES, n_bins=3)
    with pytest.raises(ValueError, match="raw"):
        scw.tl.score_genes(data, GENES, use_raw=True)
    assert list(data.obs.columns) == []
