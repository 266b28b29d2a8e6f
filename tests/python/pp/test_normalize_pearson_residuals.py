from __future__ import annotations

import anndata as ad
import numpy as np
import pytest
import scanpy as sc
from conftest import dense, simulated_counts

import scwarp as scw


def exact(x, theta=100.0, clip=None):
    x = dense(x).astype(np.float64)
    mu = x.sum(1, keepdims=True) * x.sum(0, keepdims=True) / x.sum()
    with np.errstate(all="ignore"):
        z = (x - mu) / np.sqrt(mu + mu**2 / theta)
    clip = np.sqrt(len(x)) if clip is None else clip
    return np.clip(z, -clip, clip)


@pytest.fixture
def full(counts):
    """Without the empty cell and genes."""
    a = counts[np.ravel(counts.X.sum(1)) > 0].copy()
    return a[:, np.ravel(a.X.sum(0)) > 0].copy()


@pytest.mark.parametrize("kwargs", [{}, {"theta": 5, "clip": 2}, {"theta": np.inf}])
def test_layouts(full, any_layout, kwargs):
    a = ad.AnnData(any_layout(full.X))
    want = exact(a.X, **kwargs)
    scw.pp.normalize_pearson_residuals(a, **kwargs)
    np.testing.assert_allclose(a.X, want, rtol=1e-6, atol=1e-6)
    assert a.X.flags.c_contiguous


def test_equals_scanpy(full):
    a, b = full.copy(), full.copy()
    scw.pp.normalize_pearson_residuals(a)
    sc.experimental.pp.normalize_pearson_residuals(b)
    np.testing.assert_allclose(a.X, np.asarray(b.X), rtol=1e-5, atol=1e-5)  # scanpy in float32
    assert a.uns == b.uns


def test_empty_cells_and_genes_are_nan(counts):
    r = scw.pp.normalize_pearson_residuals(counts, inplace=False)["X"]
    empty = np.ravel(counts.X.sum(1)) == 0
    assert empty.any()
    assert np.isnan(r[empty]).all()
    assert np.isnan(r[:, np.ravel(counts.X.sum(0)) == 0]).all()
    np.testing.assert_allclose(r, exact(counts.X), rtol=1e-6, atol=1e-6)


def test_slots(full):
    before = dense(full.X).copy()
    r = scw.pp.normalize_pearson_residuals(full, inplace=False, clip=4)
    assert {k: r[k] for k in ("theta", "clip", "computed_on")} == {"theta": 100, "clip": 4, "computed_on": "adata.X"}
    c = scw.pp.normalize_pearson_residuals(full, copy=True, clip=4)
    np.testing.assert_array_equal(c.X, r["X"])
    np.testing.assert_array_equal(dense(full.X), before)
    assert not full.uns
    full.layers["l"] = full.X.copy()
    scw.pp.normalize_pearson_residuals(full, layer="l", clip=4)
    np.testing.assert_array_equal(full.layers["l"], r["X"])
    assert full.uns["pearson_residuals_normalization"]["computed_on"] == "l"
    np.testing.assert_array_equal(dense(full.X), before)


def test_same_bits_for_any_number_of_threads():
    a = ad.AnnData(simulated_counts(900, 120, seed=2))
    results = []
    for threads in (1, 2, 3):
        with scw.settings.override(n_threads=threads):
            results.append(scw.pp.normalize_pearson_residuals(a, inplace=False)["X"])
    for r in results[1:]:
        np.testing.assert_array_equal(r, results[0])


def test_warning_and_errors(full):
    before = dense(full.X).copy()
    with pytest.raises(ValueError, match="theta must be positive"):
        scw.pp.normalize_pearson_residuals(full, theta=0)
    with pytest.raises(ValueError, match="clip must not be negative"):
        scw.pp.normalize_pearson_residuals(full, clip=-1)
    np.testing.assert_array_equal(dense(full.X), before)
    full.X = full.X * 0.5
    with pytest.warns(UserWarning, match="non-integers"):
        scw.pp.normalize_pearson_residuals(full)
