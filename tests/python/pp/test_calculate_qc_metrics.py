from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
import scipy.sparse as sp
from conftest import dense, simulated_counts

import scwarp as scw


def with_families(a):
    a.var["mt"] = np.arange(a.n_vars) % 7 == 0
    a.var["ribo"] = np.arange(a.n_vars) % 5 == 1
    return a


def same_frame(ours: pd.DataFrame, theirs: pd.DataFrame, exact: bool = True):
    assert list(ours.columns) == list(theirs.columns)
    for c in theirs.columns:
        if exact and "log1p" not in c and "pct" not in c and "mean" not in c:
            np.testing.assert_array_equal(ours[c].to_numpy(), theirs[c].to_numpy(), err_msg=c)
        np.testing.assert_allclose(ours[c].to_numpy(), theirs[c].to_numpy(), rtol=1e-5, atol=1e-6, err_msg=c)
        assert ours[c].dtype.kind == theirs[c].dtype.kind, c


@pytest.mark.parametrize("percent_top", [(50, 100, 200), None, (1,)])
@pytest.mark.parametrize("log1p", [True, False])
def test_equals_scanpy(counts, any_layout, percent_top, log1p):
    a = with_families(ad.AnnData(any_layout(counts.X), var=counts.var))
    kwargs = dict(qc_vars=["mt", "ribo"], percent_top=percent_top, log1p=log1p)
    obs, var = scw.pp.calculate_qc_metrics(a, **kwargs)
    if sp.issparse(a.X):
        a.X = sp.csr_matrix(a.X)  # all that scanpy 1.11 takes here
    obs2, var2 = sc.pp.calculate_qc_metrics(a, **kwargs)
    same_frame(obs, obs2)
    same_frame(var, var2)


def test_inplace_writes_the_same_columns(counts):
    a, b = with_families(counts), with_families(counts.copy())
    assert scw.pp.calculate_qc_metrics(a, qc_vars="mt", percent_top=[20], inplace=True) is None
    sc.pp.calculate_qc_metrics(b, qc_vars=["mt"], percent_top=[20], inplace=True)
    same_frame(a.obs, b.obs)
    same_frame(a.var[b.var.columns], b.var)
    for ours, theirs in ((a.obs, b.obs), (a.var, b.var)):
        assert {c: str(ours[c].dtype) for c in theirs} == {c: str(d) for c, d in theirs.dtypes.items()}


def test_raw(counts):
    a = with_families(counts)
    a.raw = a.copy()
    a.X = a.X * 2
    b = a.copy()
    for x, module in ((a, scw), (b, sc)):
        x.var["late"] = x.var["mt"]  # not in raw
        module.pp.calculate_qc_metrics(x, qc_vars=["mt", "late"], percent_top=[20], use_raw=True, inplace=True)
    same_frame(a.obs, b.obs)
    same_frame(a.var, b.var)
    assert list(a.raw.var) == list(b.raw.var) == ["mt", "ribo"]
    # With genes of its own, which scanpy does not take, raw has the columns.
    c = a.raw.to_adata()[:, 5:].copy()
    c.raw = a.raw.to_adata()
    with pytest.raises(ValueError, match="Length of values"):
        sc.pp.calculate_qc_metrics(c.copy(), percent_top=None, use_raw=True, inplace=True)
    scw.pp.calculate_qc_metrics(c, qc_vars=["mt"], percent_top=[20], use_raw=True, inplace=True)
    np.testing.assert_array_equal(c.obs["total_counts_mt"], a.obs["total_counts_mt"])
    assert list(c.var) == ["mt", "ribo"]
    np.testing.assert_array_equal(c.raw.var["total_counts"], a.var["total_counts"])


def test_big_endian(counts):
    a, b = ad.AnnData(dense(counts.X).astype(">f4")), ad.AnnData(dense(counts.X))
    for x in (a, b):
        scw.pp.calculate_qc_metrics(x, percent_top=[20], inplace=True)
        scw.pp.filter_cells(x, min_counts=3)
        scw.pp.filter_genes(x, min_counts=3)
    pd.testing.assert_frame_equal(a.obs, b.obs)
    pd.testing.assert_frame_equal(a.var, b.var)


def test_view(counts):
    whole = with_families(counts)
    v = whole[10:90]
    scw.pp.calculate_qc_metrics(v, percent_top=None, inplace=True)
    obs, var = scw.pp.calculate_qc_metrics(whole[10:90].copy(), percent_top=None)
    same_frame(v.obs, obs)
    same_frame(v.var[list(var)], var)
    assert list(whole.var) == ["mt", "ribo"]
    assert not list(whole.obs)


@pytest.mark.parametrize("dtype", [bool, "boolean", int, "uint8", "Int64"])
def test_flags(counts, dtype):
    want = scw.pp.calculate_qc_metrics(with_families(counts), qc_vars=["mt"], percent_top=None)[0]
    counts.var["mt"] = counts.var["mt"].astype(dtype)
    got = scw.pp.calculate_qc_metrics(counts, qc_vars=["mt"], percent_top=None)[0]
    pd.testing.assert_frame_equal(got, want)
    counts.var["highly_variable"] = counts.var["mt"]
    scw.pp.filter_highly_variable(counts)
    assert counts.n_vars == 43


@pytest.mark.parametrize("values", [
    pd.array([True, None] * 150, dtype="boolean"),
    pd.array([1, None] * 150, dtype="Int64"),
    np.array([True, np.nan] * 150, dtype=object),
    np.array(["True", "False"] * 150, dtype=object),
    pd.Categorical(["mt", "no"] * 150),
    np.array([1.0, np.nan] * 150),
    np.arange(300),
])  # fmt: skip
def test_what_is_not_flags(counts, values):
    counts.var["mt"] = counts.var["highly_variable"] = values
    with pytest.raises(ValueError, match=r"var\['mt'\]"):
        scw.pp.calculate_qc_metrics(counts, qc_vars=["mt"], percent_top=None)
    with pytest.raises(ValueError, match=r"var\['highly_variable'\]"):
        scw.pp.filter_highly_variable(counts)
    assert counts.n_vars == 300


def test_real_data(shared_data):
    for name in ("pbmc3k/pbmc3k_raw.h5ad", "brain_10k_subset/brain_10k_subset.h5ad"):
        a = ad.read_h5ad(shared_data / name)
        a.var_names_make_unique()
        a.var["mt"] = a.var_names.str.startswith("MT-")
        kwargs = dict(qc_vars=["mt"], percent_top=(50, 100, 500))
        for ours, theirs in zip(
            scw.pp.calculate_qc_metrics(a, **kwargs), sc.pp.calculate_qc_metrics(a, **kwargs), strict=True
        ):
            same_frame(ours, theirs)


def test_fractions_negatives_and_large_counts():
    r = np.random.default_rng(0)
    x = r.normal(0, 100, (50, 40)) * (r.random((50, 40)) < 0.5)
    x[3, 5] = 1e9
    a = ad.AnnData(x)
    obs, var = scw.pp.calculate_qc_metrics(a, percent_top=[3, 10], log1p=False)
    np.testing.assert_allclose(obs["total_counts"], x.sum(1), rtol=1e-12)
    # Sums over cells are in fixed point: every value is rounded to max|x| 2^-48.
    np.testing.assert_allclose(var["total_counts"], x.sum(0), rtol=1e-12, atol=50 * 1e9 * 2.0**-48)
    top = -np.sort(-x, axis=1)
    np.testing.assert_allclose(obs["pct_counts_in_top_10_genes"], top[:, :10].sum(1) / x.sum(1) * 100, rtol=1e-9)


def test_nan_reaches_the_sums():
    x = np.array([[1.0, np.nan, 2.0], [1.0, 2.0, np.inf]])
    obs, var = scw.pp.calculate_qc_metrics(ad.AnnData(x), percent_top=None, log1p=False)
    np.testing.assert_array_equal(obs["total_counts"], [np.nan, np.inf])
    np.testing.assert_array_equal(var["total_counts"], [2, np.nan, np.inf])


def test_explicit_zeros_do_not_count(counts):
    x = counts.X.copy()
    x.data[::3] = 0
    obs, var = scw.pp.calculate_qc_metrics(ad.AnnData(x), percent_top=None)
    np.testing.assert_array_equal(obs["n_genes_by_counts"], (dense(x) != 0).sum(1))
    np.testing.assert_array_equal(var["n_cells_by_counts"], (dense(x) != 0).sum(0))


def test_same_bits_for_any_number_of_threads():
    x = simulated_counts(3000, 150, seed=1)
    x.data = x.data / 7
    frames = []
    for threads in (1, 2, 3):
        with scw.settings.override(n_threads=threads):
            frames.append(scw.pp.calculate_qc_metrics(ad.AnnData(x), percent_top=[10]))
    for obs, var in frames[1:]:
        pd.testing.assert_frame_equal(obs, frames[0][0], check_exact=True)
        pd.testing.assert_frame_equal(var, frames[0][1], check_exact=True)


@pytest.mark.parametrize("shape", [(0, 5), (1, 5), (5, 1)])
def test_small(shape):
    obs, var = scw.pp.calculate_qc_metrics(ad.AnnData(np.ones(shape, np.float32)), percent_top=[1])
    assert len(obs) == shape[0] and len(var) == shape[1]
    assert (obs["total_counts"] == shape[1]).all()


def test_errors(counts):
    with pytest.raises(KeyError, match="no column 'nope'"):
        scw.pp.calculate_qc_metrics(counts, qc_vars=["nope"])
    with pytest.raises(IndexError, match="percent_top must be from 1"):
        scw.pp.calculate_qc_metrics(counts, percent_top=[10**6])
    with pytest.raises(ValueError, match="there is no raw"):
        scw.pp.calculate_qc_metrics(counts, use_raw=True)
