from __future__ import annotations

import anndata as ad
import numpy as np
import pytest
import scanpy as sc
import scipy.sparse as sp
from conftest import dense, simulated_counts

import scwarp as scw


def exact(x: np.ndarray, target: float | None, exclude: bool = False, max_fraction: float = 0.05):
    """Slow and obvious, in float64."""
    c = x.sum(1)
    if exclude:
        c = x[:, ~(x > max_fraction * c[:, None]).any(0)].sum(1)
    t = np.median(c[c > 0]) if target is None else target
    f = np.where(c > 0, t / np.where(c > 0, c, 1), 1)
    return x * f[:, None], c / t


@pytest.mark.parametrize("target", [None, 1e4])
@pytest.mark.parametrize("exclude", [False, True])
def test_layouts(counts, any_layout, target, exclude):
    a = ad.AnnData(any_layout(counts.X))
    a.obs_names, a.var_names = counts.obs_names, counts.var_names
    want, factor = exact(dense(counts.X).astype(np.float64), target, exclude)
    fmt = getattr(a.X, "format", None)
    scw.pp.normalize_total(a, target_sum=target, exclude_highly_expressed=exclude, key_added="factor")
    assert getattr(a.X, "format", None) == fmt
    np.testing.assert_allclose(dense(a.X), want, rtol=1e-6)
    np.testing.assert_allclose(a.obs["factor"], factor, rtol=1e-12)


@pytest.mark.parametrize("exclude", [False, True])
def test_equals_scanpy(counts, exclude):
    a, b = counts[2:].copy(), counts[2:].copy()  # scanpy 1.11 counts empty cells in its median of a CSR matrix
    scw.pp.normalize_total(a, exclude_highly_expressed=exclude)
    sc.pp.normalize_total(b, exclude_highly_expressed=exclude)
    np.testing.assert_allclose(dense(a.X), dense(b.X), rtol=1e-5, atol=1e-6)


def test_real_data(shared_data):
    a = ad.read_h5ad(shared_data / "pbmc3k" / "pbmc3k_raw.h5ad")
    b = a.copy()
    for m, x in ((scw, a), (sc, b)):
        m.pp.normalize_total(x, target_sum=1e4)
        m.pp.log1p(x)
    np.testing.assert_allclose(a.X.data, b.X.data, rtol=1e-5, atol=1e-6)


def test_order_and_duplicates_of_entries_do_not_matter_and_stay():
    x = sp.csr_matrix((np.array([1, 2, 3, 4], np.float32), np.array([1, 0, 1, 2]), np.array([0, 3, 4])), shape=(2, 3))
    a = ad.AnnData(x)
    scw.pp.normalize_total(a, target_sum=12)
    assert a.X is x
    np.testing.assert_array_equal(x.data, [2, 4, 6, 12])
    np.testing.assert_array_equal(x.indices, [1, 0, 1, 2])
    excluding = ad.AnnData(
        sp.csr_matrix((np.array([3, 2, 3, 4], np.float32), np.array([1, 0, 1, 2]), np.array([0, 3, 4])), shape=(2, 3))
    )
    scw.pp.normalize_total(excluding, target_sum=2, exclude_highly_expressed=True, max_fraction=0.5)
    np.testing.assert_array_equal(dense(excluding.X), [[2, 6, 0], [0, 0, 4]])  # 3 + 3 is more than half of 8


def test_same_bits_for_any_number_of_threads():
    x = simulated_counts(3000, 200, seed=3)
    x.data = x.data / 7  # not integers: the order of the sum would show
    results = []
    for threads in (1, 2, 3, 1, 2):
        with scw.settings.override(n_threads=threads):
            results.append(scw.pp.normalize_total(ad.AnnData(x.copy()), inplace=False)["X"].data)
    for r in results[1:]:
        np.testing.assert_array_equal(r, results[0])


def test_inplace_false_and_copy_leave_the_object(counts):
    before = counts.X.copy()
    r = scw.pp.normalize_total(counts, inplace=False)
    c = scw.pp.normalize_total(counts, copy=True)
    assert (before != counts.X).nnz == 0
    np.testing.assert_array_equal(dense(r["X"]), dense(c.X))
    assert abs(dense(c.X) - dense(before)).max() > 0


def test_view_layer_obsm(counts):
    counts.layers["l"] = counts.X.copy()
    counts.obsm["o"] = dense(counts.X).copy()
    v = counts[5:50]
    scw.pp.normalize_total(v, target_sum=10, layer="l")
    assert not v.is_view
    np.testing.assert_allclose(dense(v.layers["l"]).sum(1), 10, rtol=1e-5)
    np.testing.assert_array_equal(dense(v.X), dense(counts.X)[5:50])
    scw.pp.normalize_total(counts, target_sum=10, obsm="o")
    assert set(np.round(counts.obsm["o"].sum(1), 4)) == {0.0, 10.0}


@pytest.mark.parametrize("call", [
    lambda v: scw.pp.normalize_total(v, exclude_highly_expressed=True, max_fraction=7),
    lambda v: scw.pp.normalize_total(v, target_sum=-1),
    lambda v: scw.pp.normalize_total(v, layer="complex"),
    lambda v: scw.pp.log1p(v, base=-1),
    lambda v: scw.pp.log1p(v, layer="complex"),
    lambda v: scw.pp.scale(v, max_value=-1),
    lambda v: scw.pp.scale(v, layer="complex"),
])  # fmt: skip
def test_a_view_stays_a_view_when_an_argument_is_refused(counts, call):
    counts.layers["complex"] = dense(counts.X).astype(complex)
    v = counts[5:50]
    with pytest.raises((ValueError, TypeError)):
        call(v)
    assert v.is_view


@pytest.mark.parametrize("n", [0, 1])
def test_few_cells(n):
    a = ad.AnnData(sp.csr_matrix(np.ones((n, 4), np.float32)))
    scw.pp.normalize_total(a, target_sum=8)
    np.testing.assert_array_equal(dense(a.X), np.full((n, 4), 2, np.float32))


def test_large_integers_are_computed_in_double():
    a = ad.AnnData(np.array([[2**24 + 1, 1], [3, 1]], np.int64))
    scw.pp.normalize_total(a, target_sum=1)
    assert a.X.dtype == np.float64
    np.testing.assert_allclose(a.X[0, 0], (2**24 + 1) / (2**24 + 2), rtol=1e-15)


def test_errors_leave_the_object(counts):
    before = counts.X.copy()
    with pytest.raises(ValueError, match=r"pp.normalize_total: target_sum must be positive.*got -1"):
        scw.pp.normalize_total(counts, target_sum=-1)
    with pytest.raises(ValueError, match=r"max_fraction must be in \[0, 1\]"):
        scw.pp.normalize_total(counts, exclude_highly_expressed=True, max_fraction=1.5)
    with pytest.raises(ValueError, match="copy=True"):
        scw.pp.normalize_total(counts, copy=True, inplace=False)
    with pytest.raises(KeyError, match="no layer 'x'"):
        scw.pp.normalize_total(counts, layer="x")
    with pytest.raises(TypeError, match="expected an AnnData"):
        scw.pp.normalize_total(counts.X)
    assert (before != counts.X).nnz == 0
