"""PCA of CuPy matrices: against a float64 SVD, NumPy in the slots, the same bits again."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pytest
import scipy.sparse as sp
from conftest import simulated_counts
from gpu import TO_GPU_OR_FORTRAN, cp

import scwarp as scw


def expression(n: int, m: int, seed: int) -> sp.csr_matrix:
    """Log expression with planted groups, so that the leading components are well apart."""
    x = simulated_counts(n, m, seed).toarray()
    groups = np.random.default_rng(seed + 1).integers(0, 6, n)
    x *= np.random.default_rng(seed + 2).lognormal(0, 0.7, (6, m))[groups]
    return sp.csr_matrix(np.log1p(x).astype(np.float32))


def exact(x: np.ndarray, k: int):
    c = x.astype(np.float64) - x.astype(np.float64).mean(0)
    _, s, v = np.linalg.svd(c, full_matrices=False)
    v = v[:k] * np.sign(v[np.arange(k), np.abs(v[:k]).argmax(1)])[:, None]
    return c @ v.T, v, s[:k] ** 2 / (len(x) - 1)


def check(scores, components, variance, x, k):
    """Variance within 1e-5, scores and components within 1e-4 where the variance is 2 % from its neighbours'."""
    w_scores, w_components, w_variance = exact(x, k)
    np.testing.assert_allclose(variance, w_variance, rtol=1e-5)
    apart = w_variance[:-1] / w_variance[1:] > 1.02
    keep = np.flatnonzero(np.r_[True, apart] & np.r_[apart, False])
    assert len(keep) >= 2
    np.testing.assert_allclose(scores[:, keep], w_scores[:, keep], atol=1e-4 * w_scores.std(), rtol=0)
    np.testing.assert_allclose(components[keep], w_components[keep], atol=1e-4)


@pytest.mark.parametrize("layout", list(TO_GPU_OR_FORTRAN))
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("m", [120, 600])  # whole decomposition on the host, and the iteration on the device
def test_matrix(layout, dtype, m):
    x = expression(900, m, seed=m)
    on_gpu = TO_GPU_OR_FORTRAN[layout](x.astype(dtype))
    scores, components, _, variance = scw.pp.pca(on_gpu, n_comps=20, return_info=True)
    assert isinstance(scores, cp.ndarray) and scores.dtype == np.float32
    check(scores.get(), components, variance, x.toarray(), 20)
    for _ in range(3):
        assert (scw.pp.pca(on_gpu, n_comps=20) == scores).all()


@pytest.mark.parametrize("layout", ["csr", "dense"])
def test_anndata_with_a_mask(layout):
    x = expression(700, 500, seed=3)
    mask = np.arange(500) % 3 != 0
    a = ad.AnnData(TO_GPU_OR_FORTRAN[layout](x))
    a.var["highly_variable"] = mask
    scw.pp.pca(a, n_comps=15)
    assert isinstance(a.obsm["X_pca"], np.ndarray) and a.obsm["X_pca"].shape == (700, 15)
    assert (a.varm["PCs"][~mask] == 0).all()
    check(a.obsm["X_pca"], a.varm["PCs"][mask].T, a.uns["pca"]["variance"], x.toarray()[:, mask], 15)


@pytest.mark.parametrize("layout", ["csr", "dense"])
def test_scaled_without_the_scaled_matrix(layout):
    x = expression(700, 400, seed=4)
    z = x.toarray().astype(np.float64)
    std = z.std(0, ddof=1)
    z = np.clip((z - z.mean(0)) / np.where(std > 0, std, 1), -3, 3)
    scores, components, _, variance = scw.pp.pca(
        TO_GPU_OR_FORTRAN[layout](x), n_comps=10, scale=True, max_value=3, return_info=True
    )
    check(scores.get(), components, variance, z, 10)
