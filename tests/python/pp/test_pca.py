from __future__ import annotations

import warnings

import anndata as ad
import numpy as np
import pytest
import scanpy as sc
import scipy.sparse as sp
from conftest import LAYOUTS, dense, simulated_counts

import scwarp as scw


def expression(n=500, m=300, seed=0) -> np.ndarray:
    """Log expression with planted groups, so that the leading components are well apart."""
    x = simulated_counts(n, m, seed).toarray()
    groups = np.random.default_rng(seed + 1).integers(0, 6, n)
    x *= np.random.default_rng(seed + 2).lognormal(0, 0.7, (6, m))[groups]
    return np.log1p(x).astype(np.float32)


def exact(z: np.ndarray, k: int, centre: bool = True):
    """Scores, components (rows), variance and ratio by a full SVD in float64, with the sign rule."""
    z = z.astype(np.float64)
    n = z.shape[0]
    c = z - z.mean(0) if centre else z
    _, s, v = np.linalg.svd(c, full_matrices=False)
    v = v[:k] * np.sign(v[np.arange(k), np.abs(v[:k]).argmax(1)])[:, None]
    scores = c @ v.T
    if centre:
        return scores, v, s[:k] ** 2 / (n - 1), s[:k] ** 2 / (s**2).sum()
    variance = scores.var(0)
    return scores, v, variance, variance / z.var(0).sum()


def separate(variance: np.ndarray) -> np.ndarray:
    """Components whose variance is 2 % or more from their neighbours'."""
    gaps = variance[:-1] / np.maximum(variance[1:], 1e-30) > 1.02
    return np.flatnonzero(np.r_[True, gaps] & np.r_[gaps, False])


def check(scores, components, variance, ratio, want, tolerance=1e-5):
    """The bounds of the project: variance 1e-5, scores 1e-4 (of the largest score's spread)."""
    w_scores, w_components, w_variance, w_ratio = want
    np.testing.assert_allclose(variance, w_variance, rtol=tolerance, atol=tolerance * 0.1 * w_variance[0])
    np.testing.assert_allclose(ratio, w_ratio, rtol=tolerance, atol=tolerance * 0.1 * w_ratio[0])
    keep = separate(w_variance)
    assert len(keep) >= 2
    np.testing.assert_allclose(scores[:, keep], w_scores[:, keep], atol=1e-4 * w_scores.std(), rtol=0)
    np.testing.assert_allclose(components[keep], w_components[keep], atol=1e-4)


@pytest.mark.parametrize("layout", list(LAYOUTS))
@pytest.mark.parametrize("centre", [True, False])
def test_equals_svd(layout, centre):
    x = LAYOUTS[layout](sp.csr_matrix(expression()))
    with_info = scw.pp.pca(x, n_comps=12, zero_center=centre, return_info=True, dtype="float64")
    scores, components, ratio, variance = with_info
    assert scores.dtype == np.float64 and components.shape == (12, 300)
    check(scores, components, variance, ratio, exact(dense(x), 12, centre))
    np.testing.assert_array_equal(scw.pp.pca(x, n_comps=12, zero_center=centre, dtype="float64"), scores)


@pytest.mark.parametrize("m", [530, 700])
def test_many_genes(m):
    """Past the size that LAPACK decomposes whole."""
    x = expression(800, m)
    for data in (x, sp.csr_matrix(x)):
        scores, components, ratio, variance = scw.pp.pca(data, n_comps=50, return_info=True)
        assert scores.dtype == components.dtype == np.float32
        check(scores, components, variance, ratio, exact(x, 50))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("centre", [True, False])
@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float64", "int32"])
def test_slots_equal_scanpy(sparse, masked, centre, chunked, dtype):
    x = np.round(np.expm1(expression(300, 80))).astype(dtype)
    a = ad.AnnData(sp.csr_matrix(x) if sparse else x)
    if masked:
        a.var["highly_variable"] = np.arange(80) % 3 != 0
    b = a.copy()
    options = {"n_comps": 8, "zero_center": centre, "chunked": chunked, "chunk_size": 100 if chunked else None}
    sc.pp.pca(b, **options, svd_solver="arpack" if not chunked else None)
    assert scw.pp.pca(a, **options) is None
    assert a.uns["pca"]["params"] == b.uns["pca"]["params"]
    assert list(a.uns["pca"]) == list(b.uns["pca"])
    assert a.obsm["X_pca"].dtype == b.obsm["X_pca"].dtype
    assert a.varm["PCs"].dtype == b.varm["PCs"].dtype and a.varm["PCs"].shape == b.varm["PCs"].shape
    for key in ("variance", "variance_ratio"):
        assert a.uns["pca"][key].dtype == b.uns["pca"][key].dtype
        if not chunked:  # scanpy's chunked PCA is approximate
            np.testing.assert_allclose(a.uns["pca"][key], b.uns["pca"][key], rtol=1e-4)
    used = a.var["highly_variable"].to_numpy() if masked else slice(None)
    check(
        a.obsm["X_pca"],
        a.varm["PCs"][used].T,
        a.uns["pca"]["variance"],
        a.uns["pca"]["variance_ratio"],
        exact(x[:, used], 8, centre or chunked),
    )
    if masked:
        assert not a.varm["PCs"][~used].any()
    if centre and not chunked:  # the same signs, too
        keep = separate(b.uns["pca"]["variance"])
        np.testing.assert_allclose(
            a.obsm["X_pca"][:, keep], b.obsm["X_pca"][:, keep], atol=1e-3 * b.obsm["X_pca"].std(), rtol=0
        )


@pytest.mark.parametrize("max_value", [None, 2.0])
@pytest.mark.parametrize("masked", [False, True])
def test_implicit_scaling(max_value, masked):
    x = expression(600, 530 if not masked else 200)
    mask = np.arange(x.shape[1]) % 2 == 0 if masked else None
    b = ad.AnnData(x.astype(np.float64))
    sc.pp.scale(b, max_value=max_value)
    want = exact(b.X if mask is None else b.X[:, mask], 20)
    results = []
    for data in (x, sp.csr_matrix(x), sp.csc_matrix(x)):
        scores, components, ratio, variance = scw.pp.pca(
            data, n_comps=20, scale=True, max_value=max_value, mask_var=mask, return_info=True
        )
        check(scores, components, variance, ratio, want)
        results.append(variance)
    np.testing.assert_array_equal(results[1], results[2])


def test_bits_do_not_depend_on_threads_or_chunks(tmp_path):
    x = sp.csr_matrix(expression(9000, 60))
    a = ad.AnnData(x)
    a.write_h5ad(tmp_path / "a.h5ad")
    scw.pp.pca(a, n_comps=10, dtype="float64")
    for threads in (1, 2, 3):
        with scw.settings.override(n_threads=threads):
            b = ad.AnnData(x)
            scw.pp.pca(b, n_comps=10, dtype="float64", chunked=threads > 1, chunk_size=1000 * threads)
            np.testing.assert_array_equal(a.obsm["X_pca"], b.obsm["X_pca"])
            backed = ad.read_h5ad(tmp_path / "a.h5ad", backed="r")
            scw.pp.pca(backed, n_comps=10, dtype="float64", chunked=True, chunk_size=700 * threads)
            np.testing.assert_array_equal(a.obsm["X_pca"], backed.obsm["X_pca"])
            np.testing.assert_array_equal(a.varm["PCs"], backed.varm["PCs"].astype(np.float32))
            backed.file.close()


def test_backed_dense_and_integer(tmp_path):
    x = np.round(np.expm1(expression(300, 40)))
    for name, data in {"dense": x, "integer": sp.csr_matrix(x.astype(np.int32))}.items():
        ad.AnnData(data).write_h5ad(tmp_path / f"{name}.h5ad")
        backed = ad.read_h5ad(tmp_path / f"{name}.h5ad", backed="r")
        for chunked in (False, True):
            scw.pp.pca(backed, n_comps=5, chunked=chunked, chunk_size=64)
            np.testing.assert_array_equal(backed.obsm.pop("X_pca"), scw.pp.pca(data, n_comps=5))
        backed.file.close()
    ad.AnnData(sp.csc_matrix(x)).write_h5ad(tmp_path / "csc.h5ad")
    backed = ad.read_h5ad(tmp_path / "csc.h5ad", backed="r")
    with pytest.raises(NotImplementedError, match="chunked=True"):
        scw.pp.pca(backed, n_comps=5)
    scw.pp.pca(backed, n_comps=5, chunked=True, chunk_size=64)
    np.testing.assert_array_equal(backed.obsm["X_pca"], scw.pp.pca(sp.csr_matrix(x), n_comps=5))
    backed.file.close()


def test_mask_arguments(counts):
    sc.pp.log1p(counts)
    counts.var["highly_variable"] = np.arange(counts.n_vars) % 2 == 0
    counts.var["other"] = np.arange(counts.n_vars) % 5 == 0
    want = scw.pp.pca(counts.X[:, counts.var["highly_variable"].to_numpy()], n_comps=5)
    a = scw.pp.pca(counts, n_comps=5, copy=True)
    np.testing.assert_array_equal(a.obsm["X_pca"], want)
    assert "X_pca" not in counts.obsm
    with pytest.warns(FutureWarning, match="deprecated"):
        b = scw.pp.pca(counts, n_comps=5, use_highly_variable=True, copy=True)
    np.testing.assert_array_equal(b.obsm["X_pca"], want)
    assert b.uns["pca"]["params"] == {
        "zero_center": True, "use_highly_variable": True, "mask_var": "highly_variable",
    }  # fmt: skip
    everything = scw.tl.pca(counts, n_comps=5, mask_var=None, copy=True, key_added="p")
    np.testing.assert_array_equal(everything.obsm["p"], scw.pp.pca(counts.X, n_comps=5))
    assert everything.varm["p"].shape == (counts.n_vars, 5) and everything.uns["p"]["params"]["mask_var"] is None
    other = counts.var["other"].to_numpy()
    c = scw.pp.pca(counts, n_comps=5, mask_var="other", copy=True)
    d = scw.pp.pca(counts, n_comps=5, mask_var=other, copy=True)
    np.testing.assert_array_equal(c.obsm["X_pca"], d.obsm["X_pca"])
    assert not c.varm["PCs"][~other].any() and c.varm["PCs"].dtype == np.float64
    with pytest.warns(FutureWarning), pytest.raises(ValueError, match="not both"):
        scw.pp.pca(counts, mask_var="other", use_highly_variable=True)
    with pytest.raises(ValueError, match="not a column"):
        scw.pp.pca(counts, mask_var="nothing")
    with pytest.raises(ValueError, match="shape"):
        scw.pp.pca(counts, mask_var=other[:-1])


def test_layer_obsm_and_default_number(counts):
    counts.layers["log"] = counts.X.log1p()
    counts.obsm["small"] = dense(counts.X)[:, 10:40].astype(np.float64)
    scw.pp.pca(counts, layer="log")
    assert counts.obsm["X_pca"].shape == (counts.n_obs, 50)
    assert counts.uns["pca"]["params"]["layer"] == "log"
    scw.pp.pca(counts, obsm="small", key_added="s")
    assert counts.obsm["s"].shape == (counts.n_obs, 29)
    assert counts.uns["s"]["components"].shape == (30, 29) and "s" not in counts.varm
    sc.pl.pca_variance_ratio(counts, show=False)


def test_view_becomes_actual(counts):
    view = counts[10:200, 5:100]
    scw.pp.pca(view, n_comps=4)
    assert not view.is_view and "X_pca" not in counts.obsm
    np.testing.assert_array_equal(view.obsm["X_pca"], scw.pp.pca(counts.X[10:200, 5:100], n_comps=4))


@pytest.mark.parametrize("solver", [None, "auto", "full", "covariance_eigh", "arpack", "lanczos", "randomized"])
def test_number_of_components(solver):
    x = expression(40, 90)[:, 10:22]
    base = scw.pp.pca(x, n_comps=11)
    np.testing.assert_array_equal(scw.pp.pca(x, n_comps=11, svd_solver=solver), base)
    if solver in (None, "arpack", "lanczos"):
        with pytest.raises(ValueError, match="n_comps must be between 1 and 11 for 40 cells and 12 genes"):
            scw.pp.pca(x, n_comps=12, svd_solver=solver)
    else:
        assert scw.pp.pca(x, n_comps=12, svd_solver=solver).shape == (40, 12)
    for k in (0, -1, 13):
        with pytest.raises(ValueError, match="n_comps must be between"):
            scw.pp.pca(x, n_comps=k, svd_solver=solver)


def test_errors_leave_the_object_alone(counts):
    before = counts.copy()
    x = counts.X.copy()
    bad = counts.copy()
    bad.X = x.copy()
    bad.X.data[7] = np.nan
    with pytest.raises(scw.DataError, match=r"gene .* contains NaN"):
        scw.pp.pca(bad, n_comps=3)
    with pytest.raises(ValueError, match="svd_solver"):
        scw.pp.pca(counts, svd_solver="magic")
    with pytest.raises(TypeError, match="unknown arguments"):
        scw.pp.pca(counts, n_com=3)
    with pytest.raises(ValueError, match="max_value"):
        scw.pp.pca(counts, n_comps=3, max_value=3)
    with pytest.raises(ValueError, match="chunk_size"):
        scw.pp.pca(counts, chunked=True)
    with pytest.raises(NotImplementedError, match="chunked works on X only"):
        scw.pp.pca(counts, chunked=True, chunk_size=5, layer="l")
    with pytest.raises(KeyError, match="no layer"):
        scw.pp.pca(counts, layer="l")
    with pytest.raises(ValueError, match="X is None"):
        scw.pp.pca(ad.AnnData(obs=counts.obs))
    for shape in ((1, 30), (0, 30), (30, 1)):
        with pytest.raises(ValueError, match="n_comps must be between"):
            scw.pp.pca(np.ones(shape, np.float32))
    assert not bad.obsm and not counts.obsm and not counts.uns
    assert (before.X != counts.X).nnz == 0


def test_constant_genes_and_duplicate_cells():
    x = expression(60, 40)
    x[:, 3] = 7
    x[30:] = x[:30]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        a = ad.AnnData(x)
        scw.pp.pca(a, n_comps=35, scale=True)
    assert np.isfinite(a.obsm["X_pca"]).all() and np.isfinite(a.varm["PCs"]).all()
    np.testing.assert_allclose(a.obsm["X_pca"][:30, :20], a.obsm["X_pca"][30:, :20], atol=1e-5)
    np.testing.assert_allclose(a.uns["pca"]["variance"][31:], 0, atol=1e-4)


@pytest.mark.parametrize("wide", [False, True])
def test_more_genes_than_the_covariance_holds(wide):
    r = np.random.default_rng(3)
    x = sp.random(300, 6100, 0.02, "csr", np.float32, random_state=3)
    x = sp.csr_matrix(sp.diags(r.lognormal(0, 1, 300)) @ x).astype(np.float64 if wide else np.float32)
    scores, components, ratio, variance = scw.pp.pca(x, n_comps=10, return_info=True)
    check(scores, components, variance, ratio, exact(x.toarray(), 10))
