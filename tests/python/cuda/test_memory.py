"""Limits, strategies, accounts and leaks of device memory."""

from __future__ import annotations

import gc

import anndata as ad
import numpy as np
import pytest
from conftest import simulated_counts

import scwarp as scw

if scw._core.unavailable_reason("cuda"):
    pytest.skip("no CUDA device: " + scw._core.unavailable_reason("cuda"), allow_module_level=True)


def knn(n: int = 3000) -> ad.AnnData:
    a = ad.AnnData(np.random.default_rng(1).normal(size=(n, 20)).astype(np.float32))
    scw.pp.neighbors(a, use_rep="X", device="cuda")
    return a


def test_info_and_free():
    a = knn()
    info = scw.memory.info()
    assert info["total"] > info["free"] > 0
    assert info["used"] == sum(info["by_tag"].values()) > 0  # the cache
    assert info["cache"]["bytes"] == info["used"] and info["cache"]["entries"] >= 2
    assert info["peak"] > info["used"]
    scw.memory.free()
    assert scw.memory.info()["used"] == 0 and scw.memory.info()["pinned"] == 0
    assert a.obsp["connectivities"].nnz > 0


def test_the_cache_dies_with_its_slots():
    scw.memory.free()
    a = knn()
    assert scw.memory.info()["used"] > 0
    del a
    gc.collect()
    assert scw.memory.info()["used"] == 0


def test_limit():
    scw.memory.free()
    with (
        scw.memory.configured(limit="1MB"),
        pytest.raises(MemoryError, match=r"asked for \d+ bytes \(limit 1000000, in use \d+, free \d+; biggest holders"),
    ):
        knn(40000)
    assert scw.memory.info()["limit"] == 0 and scw.memory.info()["used"] == 0
    assert knn().obsp["distances"].nnz == 3000 * 14


def test_a_request_over_the_limit_takes_the_cache():
    scw.memory.free()
    a = knn(20000)
    held = scw.memory.info()["used"]
    assert held > 0
    with scw.memory.configured(limit=held + 1000):
        x = simulated_counts(3000, 300)
        np.testing.assert_array_equal(scw.pp.log1p(x, device="cuda").data, scw.pp.log1p(x, device="cpu").data)
    assert scw.memory.info()["used"] == 0 and a.n_obs == 20000


@pytest.mark.parametrize(
    "options", [{"pool": "256MiB"}, {"managed": True}, {"allocator": "cupy"}, {"allocator": "rmm"}]
)
def test_strategies_give_the_same_results(options):
    if "allocator" in options:
        pytest.importorskip(options["allocator"])
    want = knn().obsp["connectivities"]
    with scw.memory.configured(**options):
        got = knn().obsp["connectivities"]
        np.testing.assert_array_equal(got.data, want.data)
        x = simulated_counts(3000, 300)
        np.testing.assert_array_equal(scw.pp.log1p(x, device="cuda").data, scw.pp.log1p(x, device="cpu").data)
        if "pool" in options:
            assert scw.memory.info()["pool_held"] >= 256 << 20
            with pytest.raises(MemoryError, match="pool of 268435456"):
                scw._core.memory.allocate("cuda:0", 1 << 30, 0, "too much")
    del got
    gc.collect()
    np.testing.assert_array_equal(knn().obsp["connectivities"].data, want.data)
    scw.memory.free()
    assert scw.memory.info()["used"] == 0


def test_a_pool_is_all_that_is_free():
    scw.memory.free()
    a = ad.AnnData(scw.pp.log1p(simulated_counts(40000, 1000), device="cpu"))
    b = a.copy()
    assert a.X.data.nbytes + a.X.indices.nbytes > 32 << 20
    scw.pp.highly_variable_genes(a, device="cpu")
    with scw.memory.configured(pool="32MiB"):
        assert 0 < scw.memory.info()["free"] <= 32 << 20
        scw.pp.highly_variable_genes(b, device="cuda")  # streams: uploaded whole, the matrix would not fit
        assert scw.memory.info()["peak"] < 32 << 20
    assert a.var.equals(b.var)


def test_cupy_on_our_pool():
    cp = pytest.importorskip("cupy")
    before = scw.memory.info()["by_tag"].get("cupy", 0)
    scw.memory.share_with_cupy()
    try:
        x = cp.arange(1 << 20, dtype=cp.float32)
        assert scw.memory.info()["by_tag"]["cupy"] - before == 4 << 20
        assert float((x + 1)[-1]) == 1 << 20
        with scw.memory.configured(limit="10MB"), pytest.raises(MemoryError, match="biggest holders: cupy"):
            cp.zeros(10_000_000)
        del x
        gc.collect()
        assert scw.memory.info()["by_tag"].get("cupy", 0) == before
    finally:
        scw.memory.share_with_cupy(False)


def test_errors_leave_nothing_behind():
    scw.memory.free()
    x = simulated_counts(3000, 300)
    for _ in range(3):
        with scw.memory.configured(limit="10KB"), pytest.raises(MemoryError):
            knn()
        with pytest.raises(ValueError, match="base must be"):
            scw.pp.log1p(x, base=-1, device="cuda")
        assert scw.memory.info()["used"] == 0
