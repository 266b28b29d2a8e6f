from __future__ import annotations

import warnings

import anndata as ad
import numpy as np
import pytest
import scanpy as sc
import scipy.sparse as sp
from conftest import dense, simulated_counts

import scwarp as scw


def exact(x, zero_center=True, max_value=None, mask=None):
    """Slow and obvious, in float64."""
    x = dense(x).astype(np.float64)
    mask = np.ones(len(x), bool) if mask is None else mask
    mean, std = x[mask].mean(0), x[mask].std(0, ddof=1)
    std[std == 0] = 1
    z = (x - mean) / std if zero_center else x / std
    if max_value is not None:
        z = np.clip(z, -max_value if zero_center else -np.inf, max_value)
    return np.where(mask[:, None], z, x), mean, std


@pytest.fixture
def mask(counts):
    return np.random.default_rng(1).random(counts.n_obs) < 0.6


@pytest.mark.parametrize("zero_center", [True, False])
@pytest.mark.parametrize("max_value", [None, 1.5])
@pytest.mark.parametrize("masked", [False, True])
def test_layouts(counts, any_layout, mask, zero_center, max_value, masked):
    a = ad.AnnData(any_layout(counts.X))
    source, m = a.X.copy(), mask if masked else None
    want, mean, std = exact(source, zero_center, max_value, m)
    scw.pp.scale(a, zero_center=zero_center, max_value=max_value, mask_obs=m)
    np.testing.assert_allclose(dense(a.X), want, rtol=2e-6, atol=1e-7)
    np.testing.assert_allclose(a.var["mean with mask" if masked else "mean"], mean, rtol=1e-12)
    np.testing.assert_allclose(a.var["std with mask" if masked else "std"], std, rtol=1e-12)
    assert a.X.dtype == (np.float32 if source.dtype == np.float32 else np.float64)
    assert sp.issparse(a.X) == (sp.issparse(source) and not zero_center)
    if zero_center:
        assert a.X.flags.c_contiguous
    elif sp.issparse(source):
        assert a.X.format == source.format
        assert type(a.X) is type(source)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("zero_center", [True, False])
@pytest.mark.parametrize("max_value", [None, 1.0])
@pytest.mark.parametrize("masked", [None, "array", "column"])
@pytest.mark.parametrize("layout", [dense, sp.csr_matrix])
def test_equals_scanpy(counts, mask, zero_center, max_value, masked, layout):
    counts.X = layout(counts.X)
    counts.obs["m"] = mask
    kwargs = {
        "zero_center": zero_center,
        "max_value": max_value,
        "mask_obs": {None: None, "array": mask, "column": "m"}[masked],
    }
    a, b = counts.copy(), counts.copy()
    scw.pp.scale(a, **kwargs)
    sc.pp.scale(b, **kwargs)
    np.testing.assert_allclose(dense(a.X), dense(b.X), rtol=1e-5, atol=1e-6)
    assert list(a.var) == list(b.var)
    for c in b.var:
        assert a.var[c].dtype == b.var[c].dtype
        np.testing.assert_allclose(a.var[c], b.var[c], rtol=1e-6)


def test_pbmc3k_equals_scanpy(shared_data):
    a = ad.read_h5ad(shared_data / "pbmc3k" / "pbmc3k_raw.h5ad")[:, ::10].copy()
    sc.pp.log1p(a)
    b = a.copy()
    scw.pp.scale(a, max_value=10)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sc.pp.scale(b, max_value=10)
    assert a.X.dtype == np.float32
    np.testing.assert_allclose(a.X, b.X, rtol=1e-5, atol=1e-6)


def test_same_bits_for_any_number_of_threads_and_layout():
    x = simulated_counts(3000, 150, seed=3)
    x.data = np.log1p(x.data / 7)
    results = []
    for threads in (1, 2, 3, 1):
        with scw.settings.override(n_threads=threads):
            results += [scw.pp.scale(x.copy(), max_value=2), scw.pp.scale(x.toarray(), max_value=2)]
    for r in results[1:]:
        np.testing.assert_array_equal(r, results[0])


def test_matrix_in_place(counts):
    x = dense(counts.X).copy()
    want = exact(x)[0]
    assert scw.pp.scale(x) is x
    np.testing.assert_allclose(x, want, rtol=2e-6, atol=1e-7)
    for kwargs in ({"copy": True}, {"inplace": False}):
        y = dense(counts.X).copy()
        z = scw.pp.scale(y, **kwargs)
        np.testing.assert_array_equal(y, dense(counts.X))
        np.testing.assert_array_equal(z, x)


def test_flags_of_numpy(counts):
    a, b = counts.copy(), counts.copy()
    scw.pp.normalize_total(a, exclude_highly_expressed=np.True_)
    scw.pp.normalize_total(b, exclude_highly_expressed=True)
    scw.pp.scale(a, zero_center=np.False_)
    scw.pp.scale(b, zero_center=False)
    assert abs(a.X - b.X).max() == 0 and a.X.nnz > 0


def test_copy_view_layer_obsm(counts):
    before = dense(counts.X).copy()
    c = scw.pp.scale(counts, copy=True)
    np.testing.assert_array_equal(dense(counts.X), before)
    assert "mean" in c.var
    assert "mean" not in counts.var
    np.testing.assert_array_equal(scw.pp.scale(counts, inplace=False), c.X)
    v = counts[10:90]
    scw.pp.scale(v)
    np.testing.assert_allclose(v.X, exact(before[10:90])[0], rtol=2e-6, atol=1e-7)
    np.testing.assert_array_equal(dense(counts.X), before)
    counts.layers["l"] = counts.X.copy()
    scw.pp.scale(counts, layer="l", zero_center=False)
    assert sp.issparse(counts.layers["l"])
    np.testing.assert_array_equal(dense(counts.X), before)
    counts.obsm["o"] = before[:, :5].copy()
    scw.pp.scale(counts, obsm="o")
    np.testing.assert_allclose(counts.obsm["o"], exact(before[:, :5])[0], rtol=2e-6, atol=1e-7)


def test_nan_stays_in_its_gene():
    x = simulated_counts(50, 6).toarray()
    x[7, 4] = np.nan
    z = scw.pp.scale(x.copy(), max_value=2)
    assert np.isnan(z[:, 4]).all()
    np.testing.assert_array_equal(z[:, :4], scw.pp.scale(x[:, :4].copy(), max_value=2))


@pytest.mark.parametrize("n", [0, 1])
@pytest.mark.parametrize("layout", [dense, sp.csr_matrix])
def test_few_cells(n, layout):
    z = scw.pp.scale(ad.AnnData(layout(np.full((n, 4), 3, np.float32))), inplace=False)
    np.testing.assert_array_equal(z, np.zeros((n, 4)))


def test_errors_leave_the_object(counts):
    before = dense(counts.X).copy()
    counts.obs["text"] = "a"
    for mask, message in (
        (np.ones(3, bool), "shape"),
        (np.ones(counts.n_obs), "boolean"),
        ("x", "not a column"),
        ("text", "boolean"),
    ):
        with pytest.raises(ValueError, match=message):
            scw.pp.scale(counts, mask_obs=mask)
    with pytest.raises(ValueError, match="max_value must be positive"):
        scw.pp.scale(counts, max_value=-1)
    with pytest.raises(ValueError, match="copy=True"):
        scw.pp.scale(counts, copy=True, inplace=False)
    with pytest.raises(KeyError, match="no layer"):
        scw.pp.scale(counts, layer="x")
    with pytest.raises(ValueError, match="needs an AnnData"):
        scw.pp.scale(before.copy(), mask_obs="x")
    with pytest.raises(ValueError, match="need an AnnData"):
        scw.pp.scale(before.copy(), layer="x")
    np.testing.assert_array_equal(dense(counts.X), before)
    assert not [c for c in counts.var if "mean" in c]


@pytest.mark.parametrize("layout", ["csr", "dense"])
@pytest.mark.parametrize("max_value", [None, 2.0])
@pytest.mark.parametrize("layer", [None, "l"])
def test_lazy_scaling_is_done_by_pca(counts, layout, max_value, layer):
    a = counts.copy()
    sc.pp.log1p(a)
    a.X = a.X.tocsr() if layout == "csr" else dense(a.X)
    if layer is not None:
        a.layers[layer] = a.X.copy()
    lazy, eager = a.copy(), a.copy()
    scw.pp.scale(lazy, max_value=max_value, layer=layer, lazy=True)
    scw.pp.scale(eager, max_value=max_value, layer=layer)
    np.testing.assert_array_equal(dense(lazy.X), dense(a.X))
    np.testing.assert_array_equal(lazy.var["mean"], eager.var["mean"])
    np.testing.assert_array_equal(lazy.var["std"], eager.var["std"])
    for x in (lazy, eager):
        scw.pp.pca(x, n_comps=8, layer=layer)
    want = eager.obsm["X_pca"]
    np.testing.assert_allclose(lazy.obsm["X_pca"], want, atol=1e-5 * np.abs(want).max())
    np.testing.assert_allclose(lazy.uns["pca"]["variance"], eager.uns["pca"]["variance"], rtol=1e-5)
    if layer is not None:  # the note is for the layer alone
        plain = a.copy()
        for x in (lazy, plain):
            scw.pp.pca(x, n_comps=4)
        np.testing.assert_array_equal(lazy.obsm["X_pca"], plain.obsm["X_pca"])


def test_scaling_ends_lazy_scaling(counts):
    a = scw.pp.scale(counts, lazy=True, max_value=3, copy=True)
    assert "scale" not in counts.uns and dict(a.uns["scale"]) == {"lazy": True, "max_value": 3.0}
    scw.pp.scale(a)
    assert "scale" not in a.uns


def test_what_cannot_be_lazy(counts):
    for data, options in [
        (counts, {"zero_center": False}),
        (counts, {"mask_obs": np.ones(counts.n_obs, bool)}),
        (counts, {"inplace": False}),
        (counts.X, {}),
    ]:
        with pytest.raises(ValueError, match="lazy=True does not go with"):
            scw.pp.scale(data, lazy=True, **options)
