"""scale and regress_out of CuPy matrices: on the device, with scanpy's slots."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from conftest import simulated_counts
from gpu import TO_GPU, cp, host

import scwarp as scw


def logged(n: int, m: int, dtype: str) -> sp.csr_matrix:
    x = simulated_counts(n, m, seed=3).astype(dtype)
    x.data = np.log1p(x.data)
    return x


def pair(layout: str, dtype: str, n: int = 300, m: int = 120) -> tuple[ad.AnnData, ad.AnnData]:
    x = logged(n, m, dtype)
    obs = pd.DataFrame(
        {
            "use": np.arange(n) % 3 != 0,
            "total": np.asarray(x.sum(axis=1)).ravel(),
            "other": np.linspace(-3, 50, n) ** 2,
            "batch": pd.Categorical(np.array(["a", "b", "c"])[np.arange(n) % 3]),
        },
        index=[f"c{i}" for i in range(n)],
    )
    on_cpu = ad.AnnData(x.toarray() if layout == "dense" else x.copy(), obs=obs.copy())
    return on_cpu, ad.AnnData(TO_GPU[layout](x), obs=obs.copy())


@pytest.mark.parametrize("layout", list(TO_GPU))
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("options", [{}, {"max_value": 2.0}, {"zero_center": False}, {"mask_obs": "use"}])
def test_scale_has_the_bits_of_the_cpu(layout, dtype, options):
    on_cpu, on_gpu = pair(layout, dtype)
    for a in (on_cpu, on_gpu):
        scw.pp.scale(a, **options)
    assert type(on_gpu.X).__module__.startswith("cupy") and on_gpu.X.dtype == dtype
    assert hasattr(on_gpu.X, "indptr") == (layout != "dense" and "zero_center" in options)
    np.testing.assert_array_equal(host(on_gpu.X), host(on_cpu.X))
    pd.testing.assert_frame_equal(on_gpu.var, on_cpu.var)


@pytest.mark.parametrize("layout", list(TO_GPU))
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_regress_out(layout, dtype):
    on_cpu, on_gpu = pair(layout, dtype)
    again = on_gpu.copy()
    for a in (on_cpu, on_gpu, again):
        scw.pp.regress_out(a, ["total", "other"])
    assert type(on_gpu.X) is cp.ndarray and on_gpu.X.dtype == dtype
    np.testing.assert_allclose(host(on_gpu.X), on_cpu.X, atol=1e-6 if dtype == "float32" else 1e-12)
    np.testing.assert_array_equal(host(again.X), host(on_gpu.X))
    assert np.abs(host(on_gpu.X)).max() > 0.1


@pytest.mark.parametrize("layout", list(TO_GPU))
def test_regress_out_of_a_category_has_the_bits_of_the_cpu(layout):
    on_cpu, on_gpu = pair(layout, "float32")
    for a in (on_cpu, on_gpu):
        scw.pp.regress_out(a, "batch")
    np.testing.assert_array_equal(host(on_gpu.X), on_cpu.X)


def test_not_in_place():
    _, a = pair("csr", "float32")
    before = host(a.X)
    assert type(scw.pp.scale(a, inplace=False)) is cp.ndarray
    assert type(scw.pp.regress_out(a, "total", inplace=False)) is cp.ndarray
    np.testing.assert_array_equal(host(a.X), before)


@pytest.mark.parametrize("layout", ["csr", "dense"])
def test_lazy_scaling(layout):
    _, lazy = pair(layout, "float32")
    eager = lazy.copy()
    scw.pp.scale(lazy, max_value=3, lazy=True)
    scw.pp.scale(eager, max_value=3)
    pd.testing.assert_frame_equal(lazy.var, eager.var)
    for a in (lazy, eager):
        scw.pp.pca(a, n_comps=6)
    want = eager.obsm["X_pca"]
    np.testing.assert_allclose(lazy.obsm["X_pca"], want, atol=1e-4 * np.abs(want).max())
