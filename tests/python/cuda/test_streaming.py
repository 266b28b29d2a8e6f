"""Host data with device="cuda": the slots that the CPU writes, the same bits in tier A, for any cutting into blocks."""

from __future__ import annotations

import logging

import anndata as ad
import numpy as np
import pytest
import scipy.sparse as sp
from conftest import simulated_counts

import scwarp as scw

if scw._core.unavailable_reason("cuda"):
    pytest.skip("no CUDA device: " + scw._core.unavailable_reason("cuda"), allow_module_level=True)

LAYOUTS = {"csr": lambda x: x.copy(), "csc": lambda x: x.tocsc(), "dense": lambda x: x.toarray()}
BLOCKS = [None, "1KiB", "30KiB", "1MiB"]  # bytes on the device at once: a row, some, many


def plain(x) -> np.ndarray:
    return x.toarray() if sp.issparse(x) else np.asarray(x)


@pytest.fixture(params=BLOCKS)
def block(request):
    with scw.settings.override(block_bytes=request.param):
        yield request.param


@pytest.mark.parametrize("layout", list(LAYOUTS))
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_rows_in_place(layout, dtype, block):
    x = simulated_counts(700, 300, seed=2).astype(dtype)
    x.data /= 3
    steps = (
        lambda a, d: scw.pp.normalize_total(a, exclude_highly_expressed=True, key_added="factor", device=d),
        lambda a, d: scw.pp.normalize_total(a, device=d),
        lambda a, d: scw.pp.log1p(a, device=d),
        lambda a, d: scw.pp.sqrt(a, device=d),
    )
    cpu, cuda = ad.AnnData(LAYOUTS[layout](x)), ad.AnnData(LAYOUTS[layout](x))
    kind = type(cuda.X)
    for step in steps:
        step(cpu, "cpu")
        step(cuda, "cuda")
        assert type(cuda.X) is kind and cuda.X.dtype == dtype
        np.testing.assert_array_equal(plain(cuda.X), plain(cpu.X))
    np.testing.assert_array_equal(cuda.obs["factor"], cpu.obs["factor"])
    assert not np.array_equal(plain(cuda.X), x.toarray())


@pytest.mark.parametrize("shape", [(0, 4), (1, 1), (5, 0)])
def test_small_shapes(shape):
    for x in (sp.csr_matrix(shape, dtype=np.float32), np.ones(shape, np.float32)):
        got, want = scw.pp.log1p(x, device="cuda"), scw.pp.log1p(x, device="cpu")
        np.testing.assert_array_equal(plain(got), plain(want))


def needs(*kernels: str):
    missing = [k for k in kernels if not scw._core.supports(k, "cuda")]
    return pytest.mark.skipif(bool(missing), reason=f"no CUDA kernel {missing}")


@needs("pp.calculate_qc_metrics", "pp.filter_cells", "pp.filter_genes")
@pytest.mark.parametrize("layout", list(LAYOUTS))
def test_qc_of_counts(layout, block):
    x = simulated_counts(500, 200, seed=8)
    a = ad.AnnData(LAYOUTS[layout](x))
    a.var["mt"] = np.arange(200) % 9 == 0
    cpu = scw.pp.calculate_qc_metrics(a, qc_vars=["mt"], percent_top=[3, 50], device="cpu")
    cuda = scw.pp.calculate_qc_metrics(a, qc_vars=["mt"], percent_top=[3, 50], device="cuda")
    for want, got in zip(cpu, cuda, strict=True):
        for column in want.columns:
            np.testing.assert_array_equal(got[column], want[column], err_msg=column)
    for call in (
        lambda d: scw.pp.filter_cells(a, min_counts=20, inplace=False, device=d),
        lambda d: scw.pp.filter_genes(a, min_cells=5, inplace=False, device=d),
    ):
        for want, got in zip(call("cpu"), call("cuda"), strict=True):
            np.testing.assert_array_equal(got, want)


@needs("pp.calculate_qc_metrics")
def test_streamed_qc_of_other_values(block):
    x = simulated_counts(500, 200, seed=8)
    x.data /= 3
    a = ad.AnnData(x)
    for want, got in zip(
        *(scw.pp.calculate_qc_metrics(a, percent_top=[7], device=d) for d in ("cpu", "cuda")), strict=True
    ):
        for column in want.columns:
            np.testing.assert_array_equal(got[column], want[column], err_msg=column)


@needs("pp.gene_moments", "pp.scale")
@pytest.mark.parametrize("layout", list(LAYOUTS))
@pytest.mark.parametrize("zero_center", [True, False])
def test_scale(layout, zero_center, block):
    x = simulated_counts(500, 200, seed=3)
    mask = np.arange(500) % 3 > 0
    out = {}
    for device in ("cpu", "cuda"):
        a = ad.AnnData(LAYOUTS[layout](x))
        scw.pp.scale(a, zero_center=zero_center, max_value=3, mask_obs=mask, device=device)
        out[device] = a
    np.testing.assert_array_equal(plain(out["cuda"].X), plain(out["cpu"].X))
    np.testing.assert_array_equal(out["cuda"].var["std with mask"], out["cpu"].var["std with mask"])


@needs("pp.gene_moments")
@pytest.mark.parametrize("layout", list(LAYOUTS))
def test_variable_genes(layout, block):
    x = simulated_counts(600, 200, seed=4)
    x.data = np.log1p(x.data / 7)
    a = ad.AnnData(LAYOUTS[layout](x))
    cpu = scw.pp.highly_variable_genes(a, n_top_genes=40, inplace=False, device="cpu")
    cuda = scw.pp.highly_variable_genes(a, n_top_genes=40, inplace=False, device="cuda")
    for column in cpu.columns:
        np.testing.assert_array_equal(cuda[column], cpu[column], err_msg=column)


@pytest.mark.parametrize("layout", list(LAYOUTS))
def test_pca(layout, block):
    x = simulated_counts(5000 if block == "1MiB" else 600, 120, seed=5)
    x.data = np.log1p(x.data)
    with scw.settings.override(block_bytes=None):
        resident = scw.pp.pca(LAYOUTS[layout](x), n_comps=8, device="cuda")
        want = scw.pp.pca(LAYOUTS[layout](x), n_comps=8, device="cpu")
    scores = scw.pp.pca(LAYOUTS[layout](x), n_comps=8, device="cuda")
    assert isinstance(scores, np.ndarray)
    np.testing.assert_array_equal(scores, resident)
    np.testing.assert_allclose(scores, want, atol=1e-4 * np.abs(want).max())


def test_graph_steps():
    x = np.random.default_rng(0).normal(size=(900, 12)).astype(np.float32)
    cpu, cuda = ad.AnnData(x.copy()), ad.AnnData(x.copy())
    scw.pp.neighbors(cpu, use_rep="X", device="cpu")
    scw.pp.neighbors(cuda, use_rep="X", device="cuda")
    for key in ("distances", "connectivities"):
        assert (cpu.obsp[key] != cuda.obsp[key]).nnz == 0
    scw.tl.umap(cuda, device="cuda")
    assert isinstance(cuda.obsm["X_umap"], np.ndarray) and np.isfinite(cuda.obsm["X_umap"]).all()


def test_a_limit_smaller_than_the_matrix():
    x = simulated_counts(4000, 900, seed=6, density=0.3)
    want = scw.pp.log1p(x, device="cpu")
    limit = x.data.nbytes // 4
    with scw.memory.configured(limit=limit):
        got = scw.pp.log1p(x, device="cuda")
        assert scw.memory.info()["peak"] <= limit
    np.testing.assert_array_equal(got.data, want.data)
    assert scw.memory.info()["by_tag"].get("streamed block", 0) == 0


def test_where_it_ran_is_said_once(caplog):
    scw._context._told.clear()
    x = simulated_counts(50, 30)
    with scw.settings.override(verbosity=1), caplog.at_level(logging.INFO, "scwarp"):
        for _ in range(3):
            scw.pp.log1p(x, device="cuda")
    said = [r.message for r in caplog.records if "runs on" in r.message]
    assert said == ["pp.log1p: runs on cuda:0 (data on the host: copied or streamed)"]


def test_auto_takes_the_device_and_cuda_never_falls_back(caplog):
    scw._context._told.clear()
    with scw.settings.override(device="auto", verbosity=1), caplog.at_level(logging.INFO, "scwarp"):
        scw.pp.log1p(simulated_counts(50, 30))
    assert "runs on cuda:0" in caplog.text
    for op in ("tl.logistic_regression",):
        if scw._core.kernels(op, "cuda")[0] == 0:
            with pytest.raises(NotImplementedError, match="has no CUDA implementation"):
                scw._context.make_context(np.zeros(3), op=op, device="cuda")


def test_an_error_leaves_the_object():
    x = simulated_counts(50, 30)
    a = ad.AnnData(x.copy())
    with pytest.raises(ValueError, match="target_sum must be positive"):
        scw.pp.normalize_total(a, target_sum=-1, device="cuda")
    np.testing.assert_array_equal(plain(a.X), x.toarray())


@needs("prim.group_moments", "tl.rank_genes_groups: rank_sums", "tl.score_genes: set_sums", "pp.regress_out")
@pytest.mark.parametrize("layout", list(LAYOUTS))
@pytest.mark.parametrize("bytes_at_once", [None, "30KiB"])
def test_the_other_operations(layout, bytes_at_once):
    """Groups, scores, regression: the CPU's bits in tier A, for any blocks."""
    with scw.settings.override(block_bytes=bytes_at_once):
        check_the_other_operations(layout)


def check_the_other_operations(layout):
    x = simulated_counts(400, 150, seed=9)
    x.data = np.log1p(x.data)
    out = {}
    for device in ("cpu", "cuda"):
        a = ad.AnnData(LAYOUTS[layout](x))
        a.obs["g"] = np.array(["a", "b", "c", "d"])[np.arange(400) % 4]
        a.obs["g"] = a.obs["g"].astype("category")
        a.obs["total"] = np.asarray(x.sum(axis=1)).ravel()
        a.uns["log1p"] = {"base": None}
        for method in ("t-test", "wilcoxon", "wilcoxon_binned"):
            scw.tl.rank_genes_groups(a, "g", method=method, key_added=method, device=device)
        scw.tl.score_genes(a, list(a.var_names[10:30]), ctrl_size=20, device=device)
        sums = scw.get.aggregate(a, "g", ["sum", "mean", "var"], device=device)
        scw.pp.regress_out(a, ["total"], device=device)
        out[device] = a, sums
    (cpu, cpu_sums), (cuda, cuda_sums) = out["cpu"], out["cuda"]
    for method in ("t-test", "wilcoxon", "wilcoxon_binned"):
        for name in ("a", "d"):
            np.testing.assert_array_equal(cuda.uns[method]["names"][name], cpu.uns[method]["names"][name])
            np.testing.assert_array_equal(cuda.uns[method]["scores"][name], cpu.uns[method]["scores"][name])
    np.testing.assert_allclose(cuda.obs["score"], cpu.obs["score"], rtol=1e-12, atol=1e-14)
    for name in ("sum", "mean", "var"):
        np.testing.assert_array_equal(cuda_sums.layers[name], cpu_sums.layers[name])
    assert isinstance(cuda.X, np.ndarray)
    np.testing.assert_allclose(cuda.X, cpu.X, rtol=1e-4, atol=1e-5)
