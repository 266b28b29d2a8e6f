from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
import scipy.sparse as sp
from conftest import LAYOUTS, dense, simulated_counts

import scwarp as scw


def exact(x, keys):
    """Least squares by SVD in float64, on scaled regressors."""
    x = dense(x).astype(np.float64)
    k = np.asarray(keys, np.float64).reshape(len(x), -1)
    r = np.c_[np.ones(len(x)), (k - k.mean(0)) / np.maximum(k.std(0), 1e-300)]
    return x - r @ np.linalg.lstsq(r, x, rcond=1e-12)[0]


def exact_categories(x, codes):
    x = dense(x).astype(np.float64).copy()
    for c in np.unique(codes):
        x[codes == c] -= x[codes == c].mean(0)
    return x


@pytest.fixture
def data(counts):
    r = np.random.default_rng(2)
    counts.X = counts.X.copy()
    counts.X.data = np.log1p(counts.X.data)
    counts.obs["total"] = np.ravel(counts.X.sum(1)).astype(float) * 100 + 5000
    counts.obs["share"] = r.random(counts.n_obs) * 1e-4
    counts.obs["int"] = r.integers(0, 9, counts.n_obs)
    counts.obs["flag"] = r.random(counts.n_obs) < 0.5
    counts.obs["cat"] = pd.Categorical(r.choice(["a", "b", "c"], counts.n_obs), categories=["c", "unused", "a", "b"])
    counts.obs["text"] = counts.obs["cat"].astype(str)
    return counts


KEYS = ["total", ["total", "share"], ["share", "int", "flag", "total"]]


@pytest.mark.parametrize("keys", KEYS)
def test_layouts(data, any_layout, keys):
    a = ad.AnnData(any_layout(data.X), obs=data.obs)
    want = exact(a.X, data.obs[keys])
    scw.pp.regress_out(a, keys)
    assert isinstance(a.X, np.ndarray)
    assert a.X.flags.c_contiguous
    np.testing.assert_allclose(a.X, want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("keys", KEYS)
@pytest.mark.parametrize("layout", [dense, sp.csr_matrix])
def test_equals_scanpy(data, keys, layout):
    data.X = layout(data.X)
    data.obs["flag"] = data.obs["flag"].astype(int)  # scanpy takes no booleans
    a, b = data.copy(), data.copy()
    scw.pp.regress_out(a, keys)
    sc.pp.regress_out(b, keys)
    assert a.X.dtype == b.X.dtype
    np.testing.assert_allclose(a.X, b.X, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("key", ["cat", "text"])
def test_categories(data, any_layout, key):
    a = ad.AnnData(any_layout(data.X), obs=data.obs)
    want = exact_categories(a.X, data.obs["text"].to_numpy())
    scw.pp.regress_out(a, key)
    np.testing.assert_allclose(a.X, want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("lazy", [False, True])
def test_text_becomes_categorical(data, lazy):
    a, b = data[:, :40].copy(), data[:, :40].copy()
    scw.pp.regress_out(a, "text", inplace=False)
    assert a.obs["text"].dtype == object
    scw.pp.regress_out(a, "text", lazy=lazy)
    sc.pp.regress_out(b, "text")
    assert a.obs["text"].dtype == b.obs["text"].dtype == "category"
    if lazy:
        scw.pp.scale(a, lazy=True)
        scw.pp.pca(a, n_comps=3)
        scw.pp.scale(b)
        scw.pp.pca(b, n_comps=3)
        np.testing.assert_allclose(a.obsm["X_pca"], b.obsm["X_pca"], atol=1e-4 * abs(b.obsm["X_pca"]).max())
    else:
        np.testing.assert_allclose(a.X, b.X, rtol=1e-5, atol=1e-6)


def test_categories_equal_scanpy(data):
    a, b = data[:, :40].copy(), data[:, :40].copy()
    b.obs["cat"] = b.obs["cat"].cat.remove_unused_categories()
    scw.pp.regress_out(a, "cat")
    sc.pp.regress_out(b, "cat")
    np.testing.assert_allclose(a.X, b.X, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("module", [sc, scw])
@pytest.mark.parametrize("layout", ["dense", "fortran", "csr"])
def test_categories_make_a_new_matrix(data, module, layout):
    a = data[:, :40].copy()
    a.obs["cat"] = a.obs["cat"].cat.remove_unused_categories()
    a.X = LAYOUTS[layout](a.X)
    before = dense(a.X).copy()
    a.layers["log"] = a.X
    module.pp.regress_out(a, "cat")
    np.testing.assert_array_equal(dense(a.layers["log"]), before)
    assert abs(a.X - before).max() > 0.1


def test_cells_without_category_keep_their_values(data):
    before = dense(data.X).copy()
    data.obs.loc[data.obs_names[:7], "cat"] = np.nan
    scw.pp.regress_out(data, "cat")
    np.testing.assert_array_equal(data.X[:7], before[:7])
    np.testing.assert_allclose(data.X[7:], exact_categories(before[7:], data.obs["text"].to_numpy()[7:]), atol=1e-6)


def test_residuals_are_orthogonal_for_keys_of_very_different_scale():
    r = np.random.default_rng(0)
    n = 500
    x = r.normal(size=(n, 30))
    keys = np.c_[1e9 + r.normal(size=n), 1e-9 * r.normal(size=n), r.lognormal(0, 2, n) * 1e5]
    a = ad.AnnData(x.copy(), obs=pd.DataFrame(keys, columns=list("abc"), index=[str(i) for i in range(n)]))
    scw.pp.regress_out(a, list("abc"))
    z = (keys - keys.mean(0)) / keys.std(0)
    assert abs(z.T @ a.X).max() < 1e-5  # 1e9 + noise has 7 digits of noise
    assert abs(a.X.sum(0)).max() < 1e-9
    assert abs(a.X - x).max() > 0.1


def test_dependent_and_constant_keys(data):
    one = scw.pp.regress_out(data, ["total", "share"], inplace=False)
    data.obs["sum"] = 3 * data.obs["total"] - 2 * data.obs["share"]
    data.obs["constant"] = 7.5
    data.obs["zero"] = 0
    np.testing.assert_allclose(
        scw.pp.regress_out(data, ["total", "constant", "share", "sum", "zero", "total"], inplace=False), one, atol=1e-6
    )
    x = dense(data.X).astype(float)
    np.testing.assert_allclose(scw.pp.regress_out(data, "constant", inplace=False), x - x.mean(0), atol=1e-6)


def test_same_bits_for_any_number_of_threads():
    x = simulated_counts(3000, 130, seed=3)
    x.data = np.log1p(x.data / 7)
    obs = pd.DataFrame({"k": np.random.default_rng(0).random(3000), "c": pd.Categorical(["p", "q", "r"] * 1000)})
    obs.index = obs.index.astype(str)
    for key in ("k", "c"):
        results = []
        for threads in (1, 2, 3, 1):
            with scw.settings.override(n_threads=threads):
                results += [scw.pp.regress_out(ad.AnnData(m, obs=obs), key, inplace=False) for m in (x, x.toarray())]
        for r in results[1:]:
            np.testing.assert_array_equal(r, results[0])


def test_integers(data):
    x = dense(data.X).astype(int)
    for dtype, result in ((np.int32, np.float32), (np.int64, np.float64)):
        a = ad.AnnData(x.astype(dtype), obs=data.obs)
        b = a.copy()
        scw.pp.regress_out(a, "total")
        sc.pp.regress_out(b, "total")
        assert a.X.dtype == b.X.dtype == result
        np.testing.assert_allclose(a.X, b.X, rtol=1e-5, atol=1e-6)


def test_copy_layer_view_inplace(data):
    before = dense(data.X).copy()
    want = exact(before, data.obs["total"])
    np.testing.assert_allclose(scw.pp.regress_out(data, "total", copy=True).X, want, atol=1e-6)
    np.testing.assert_allclose(scw.pp.regress_out(data, "total", inplace=False), want, atol=1e-6)
    data.layers["l"] = before.copy()
    scw.pp.regress_out(data, "total", layer="l")
    np.testing.assert_allclose(data.layers["l"], want, atol=1e-6)
    np.testing.assert_array_equal(dense(data.X), before)
    v = data[:100]
    scw.pp.regress_out(v, ["total"])
    np.testing.assert_allclose(v.X, exact(before[:100], data.obs["total"][:100]), atol=1e-6)
    np.testing.assert_array_equal(dense(data.X), before)


@pytest.mark.parametrize("n", [0, 1, 2])
def test_few_cells(n):
    a = ad.AnnData(
        np.arange(n * 3, dtype=np.float32).reshape(n, 3),
        obs=pd.DataFrame({"k": np.arange(n) * 1.0, "c": ["a"] * n}, index=[str(i) for i in range(n)]),
    )
    np.testing.assert_allclose(scw.pp.regress_out(a, "k", inplace=False), np.zeros((n, 3)), atol=1e-6)
    r = scw.pp.regress_out(a, "c", inplace=False)
    np.testing.assert_allclose(r, a.X - a.X.mean(0) if n else a.X, atol=1e-6)


def test_errors_leave_the_object(data):
    before = dense(data.X).copy()
    with pytest.raises(KeyError, match="'x' not in obs"):
        scw.pp.regress_out(data, ["total", "x"])
    with pytest.raises(ValueError, match="only a single categorical key"):
        scw.pp.regress_out(data, ["total", "cat"])
    data.obs["bad"] = data.obs["total"]
    data.obs.loc[data.obs_names[4], "bad"] = np.nan
    with pytest.raises(scw.DataError, match=r"'bad' is not a finite number for cell 'cell4'"):
        scw.pp.regress_out(data, "bad")
    with pytest.raises(ValueError, match="copy=True"):
        scw.pp.regress_out(data, "total", copy=True, inplace=False)
    with pytest.raises(TypeError, match="expected an AnnData"):
        scw.pp.regress_out(before, "total")
    np.testing.assert_array_equal(dense(data.X), before)


def _reference(shared_data, name):
    a = ad.read_h5ad(shared_data / "pbmc68k_reduced" / "pbmc68k_reduced.h5ad")
    b = a.raw.to_adata()[:200, :200].copy()
    return b, np.load(shared_data / "reference_tables/scanpy/tests/_data" / name)


def test_published_continuous(shared_data):
    a, want = _reference(shared_data, "regress_test_small.npy")
    scw.pp.regress_out(a, ["n_counts", "percent_mito"])
    np.testing.assert_allclose(a.X, want, rtol=1e-5, atol=1e-6)


def test_published_categorical(shared_data):
    a, want = _reference(shared_data, "regress_test_small_cat.npy")
    scw.pp.regress_out(a, "bulk_labels")
    np.testing.assert_allclose(a.X, want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("layout", ["csr", "dense"])
@pytest.mark.parametrize("keys", [["total", "share"], ["cat"], ["text"], ["total", "total"]], ids="+".join)
@pytest.mark.parametrize("max_value", [None, 2.0])
def test_lazy_regression_is_done_by_pca(data, layout, keys, max_value):
    if layout == "dense":
        data.X = data.X.toarray()
    x = data.X.copy()
    eager, lazy = data.copy(), data.copy()
    scw.pp.regress_out(eager, keys)
    scw.pp.scale(eager, max_value=max_value)
    scw.pp.regress_out(lazy, keys, lazy=True)
    scw.pp.scale(lazy, max_value=max_value, lazy=True)
    np.testing.assert_array_equal(dense(lazy.X), dense(x))
    np.testing.assert_allclose(lazy.var["std"], eager.var["std"], rtol=1e-5)
    mask = np.arange(data.n_vars) % 4 > 0
    for genes in (None, mask):
        for a in (eager, lazy):
            scw.pp.pca(a, n_comps=5, mask_var=genes)
        want = eager.obsm["X_pca"]
        np.testing.assert_allclose(lazy.obsm["X_pca"], want, atol=1e-5 * np.abs(want).max())
        np.testing.assert_allclose(lazy.varm["PCs"], eager.varm["PCs"], atol=1e-5)
        np.testing.assert_allclose(lazy.uns["pca"]["variance"], eager.uns["pca"]["variance"], rtol=1e-5)
    columns = {"cat": 4, "text": 3}.get(keys[0], len(keys) + 1)
    assert lazy.varm["regress_out"].shape == (data.n_vars, columns)


def test_lazy_regression_survives_a_file_and_subsets(data, tmp_path):
    scw.pp.regress_out(data, ["cat"], lazy=True)
    data.write_h5ad(tmp_path / "a.h5ad")
    again = ad.read_h5ad(tmp_path / "a.h5ad")
    for a in (data, again):
        scw.pp.pca(a, n_comps=4)
    np.testing.assert_array_equal(again.obsm["X_pca"], data.obsm["X_pca"])
    # The fit stays that of all cells and genes.
    cells, genes = np.arange(data.n_obs) % 3 > 0, np.arange(data.n_vars) % 2 > 0
    part = data[cells][:, genes].copy()
    scw.pp.pca(part, n_comps=4)
    residuals = scw.pp.regress_out(data, ["cat"], inplace=False)[cells][:, genes]
    want = scw.pp.pca(residuals, n_comps=4)
    np.testing.assert_allclose(part.obsm["X_pca"], want, atol=1e-5 * np.abs(want).max())


def test_lazy_regression_is_done_once(data):
    scw.pp.regress_out(data, ["total"], lazy=True)
    with pytest.raises(ValueError, match="still to be done"):
        scw.pp.scale(data)
    scw.pp.regress_out(data, ["total"])
    assert "regress_out" not in data.uns
    scw.pp.scale(data)
    with pytest.raises(ValueError, match="does not go with"):
        scw.pp.regress_out(data, ["total"], lazy=True, inplace=False)
    scw.pp.regress_out(data, ["total"], lazy=True)
    del data.varm["regress_out"]
    with pytest.raises(KeyError, match="is gone"):
        scw.pp.pca(data, n_comps=3)
