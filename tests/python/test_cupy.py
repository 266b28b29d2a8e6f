"""CuPy in, CuPy out: operations with CUDA kernels run where the data are, and give the CPU's bits where promised."""

from __future__ import annotations

import gc
import weakref

import anndata as ad
import numpy as np
import pytest
import scipy.sparse as sp
from conftest import simulated_counts
from gpu import TO_GPU_OR_FORTRAN, cp, csp, host

import scwarp as scw
from scwarp import _context


@pytest.mark.parametrize("layout", list(TO_GPU_OR_FORTRAN))
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_normalize_total_and_log1p_have_the_bits_of_the_cpu(layout, dtype):
    x = simulated_counts(500, 300, seed=2).astype(dtype)
    x.data /= 3
    cpu_x = x if layout in ("csr", "csc") else x.toarray()
    on_cpu, on_gpu = ad.AnnData(cpu_x.copy()), ad.AnnData(TO_GPU_OR_FORTRAN[layout](x))
    kind = type(on_gpu.X)
    for a in (on_cpu, on_gpu):
        scw.pp.normalize_total(a, target_sum=1e3, key_added="factor")
        scw.pp.log1p(a)
    assert type(on_gpu.X) is kind
    np.testing.assert_array_equal(host(on_gpu.X), host(on_cpu.X))
    np.testing.assert_array_equal(on_gpu.obs["factor"], on_cpu.obs["factor"])


def test_normalize_total_leaves_the_order_of_the_entries():
    x = sp.csr_matrix((np.array([0.1, 2, 3, 4], np.float32), np.array([1, 0, 1, 2]), np.array([0, 3, 4])), shape=(2, 3))
    on_cpu, on_gpu = ad.AnnData(x.copy()), ad.AnnData(csp.csr_matrix(x))
    for a in (on_cpu, on_gpu):
        scw.pp.normalize_total(a, target_sum=12)
    np.testing.assert_array_equal(on_gpu.X.data.get(), on_cpu.X.data)
    np.testing.assert_array_equal(on_gpu.X.indices.get(), x.indices)


def test_the_callers_stream_is_used():
    x = simulated_counts(300, 200, seed=4)
    want = scw.pp.log1p(x).toarray()
    stream = cp.cuda.Stream(non_blocking=True)
    with stream:
        on_gpu = csp.csr_matrix(x)
        on_gpu.data *= 1  # queued on the stream before the call
        got = scw.pp.log1p(on_gpu)
        got = got.get(stream)
    stream.synchronize()
    np.testing.assert_array_equal(got.toarray(), want)


def test_the_per_thread_default_stream_is_refused():
    x = cp.ones((30, 20), cp.float32)
    with cp.cuda.Stream.ptds:
        for call in (scw.pp.log1p, scw.get.X_to_CPU, lambda x: scw.get.X_to_GPU(np.ones(3))):
            with pytest.raises(ValueError, match="per-thread default stream"):
                call(x)
    np.testing.assert_array_equal(x.get(), np.ones((30, 20)))


def test_a_result_keeps_the_callers_stream():
    x, cells = cp.arange(6000, dtype=cp.float32).reshape(300, 20), np.arange(300) % 2
    stream = cp.cuda.Stream(non_blocking=True)
    alive = weakref.ref(stream)
    cp.cuda.Device().synchronize()
    with stream:
        ctx = _context.make_context(x, op="pp.subset")
        rows = scw._core.pp.subset(ctx, x, cells.astype(np.uint8), None)
        got = cp.asnumpy(rows)
    del stream, ctx
    gc.collect()
    assert alive() is not None
    np.testing.assert_array_equal(got, np.arange(6000, dtype=np.float32).reshape(300, 20)[1::2])
    del rows  # freed in a stream that is still there
    gc.collect()
    cp.cuda.Device().synchronize()


@pytest.mark.parametrize("layout", ["csr", "dense"])
def test_pca_agrees_with_the_cpu_and_repeats(layout):
    x = simulated_counts(600, 200, seed=5)
    x.data = np.log1p(x.data)
    want, _, _, want_variance = scw.pp.pca(x if layout == "csr" else x.toarray(), n_comps=8, return_info=True)
    results = [scw.pp.pca(TO_GPU_OR_FORTRAN[layout](x), n_comps=8, return_info=True) for _ in range(3)]
    for scores, _, _, variance in results:
        np.testing.assert_allclose(host(variance), want_variance, rtol=1e-5)
        np.testing.assert_allclose(host(scores), want, atol=1e-4 * np.abs(want).max())
        np.testing.assert_array_equal(host(scores), host(results[0][0]))


def test_pca_of_an_anndata_writes_scanpys_slots():
    a = ad.AnnData(csp.csr_matrix(simulated_counts(300, 120, seed=6)))
    scw.pp.pca(a, n_comps=5)
    assert isinstance(a.obsm["X_pca"], np.ndarray) and a.obsm["X_pca"].shape == (300, 5)
    assert a.varm["PCs"].shape == (120, 5)
    assert a.uns["pca"]["variance"].shape == (5,)


@pytest.mark.parametrize("method", ["umap", "gauss"])
def test_neighbors_has_the_cpus_neighbours_and_weights(method):
    rep = np.random.default_rng(0).normal(size=(700, 12)).astype(np.float32)
    on_cpu, on_gpu = ad.AnnData(np.zeros((700, 1), np.float32)), ad.AnnData(np.zeros((700, 1), np.float32))
    on_cpu.obsm["X_pca"], on_gpu.obsm["X_pca"] = rep, cp.asarray(rep)
    for a in (on_cpu, on_gpu):
        scw.pp.neighbors(a, use_rep="X_pca", method=method)
    for key in ("distances", "connectivities"):
        x, y = on_cpu.obsp[key], on_gpu.obsp[key]
        assert sp.issparse(y)
        np.testing.assert_array_equal(x.indptr, y.indptr)
        np.testing.assert_array_equal(x.indices, y.indices)
        np.testing.assert_array_equal(x.data, y.data)


def test_data_on_the_device_stay_there():
    x = simulated_counts(50, 30)
    with pytest.raises(TypeError, match="the data are on cuda:0"):
        scw.pp.log1p(ad.AnnData(csp.csr_matrix(x)), device="cpu")


def test_an_error_leaves_the_object():
    x = simulated_counts(50, 30)
    a = ad.AnnData(csp.csr_matrix(x))
    with pytest.raises(ValueError, match="target_sum must be positive"):
        scw.pp.normalize_total(a, target_sum=-1)
    np.testing.assert_array_equal(host(a.X), x.toarray())
