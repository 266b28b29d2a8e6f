"""aggregate, t-tests and gene scores of CuPy matrices: the bits of the CPU, scanpy's slots."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from conftest import simulated_counts
from gpu import TO_GPU

import scwarp as scw


def pair(layout: str, dtype: str = "float32") -> tuple[ad.AnnData, ad.AnnData]:
    x = simulated_counts(300, 120, seed=3).astype(dtype)
    x.data = np.log1p(x.data)
    obs = pd.DataFrame(
        {
            "group": pd.Categorical(np.array(["a", "b", "c", None], dtype=object)[np.arange(300) ** 2 % 7 % 4]),
            "batch": pd.Categorical(np.array(["x", "y"])[np.arange(300) % 2]),
        },
        index=[f"c{i}" for i in range(300)],
    )
    on_cpu = ad.AnnData(x.toarray() if layout == "dense" else x.copy(), obs=obs.copy())
    return on_cpu, ad.AnnData(TO_GPU[layout](x), obs=obs.copy())


@pytest.mark.parametrize("layout", list(TO_GPU))
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_aggregate(layout, dtype):
    functions = ["sum", "mean", "var", "count_nonzero", "sq_sum"]
    want, got = (scw.get.aggregate(a, ["group", "batch"], functions) for a in pair(layout, dtype))
    pd.testing.assert_frame_equal(got.obs, want.obs)
    for f in functions:
        assert isinstance(got.layers[f], np.ndarray)
        np.testing.assert_array_equal(got.layers[f], want.layers[f])
    assert got.layers["var"].max() > 0


@pytest.mark.parametrize("layout", list(TO_GPU))
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("by", ["group", "batch"])
def test_medians(layout, dtype, by):
    want, got = (scw.get.aggregate(a, by, "median").layers["median"] for a in pair(layout, dtype))
    np.testing.assert_array_equal(got, want)
    on_cpu, _ = pair(layout, dtype)
    dense = on_cpu.X.toarray() if layout != "dense" else on_cpu.X
    rows = [np.median(dense[on_cpu.obs[by] == label], axis=0) for label in on_cpu.obs[by].cat.categories]
    np.testing.assert_allclose(got, rows, rtol=1e-6)
    assert got.max() > 0


@pytest.mark.parametrize("layout", list(TO_GPU))
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"reference": "b"},
        {"method": "t-test_overestim_var", "pts": True},
        {"mean_in_log_space": False, "corr_method": "bonferroni"},
    ],
)
def test_t_tests(layout, options):
    on_cpu, on_gpu = pair(layout)
    for a in (on_cpu, on_gpu):
        scw.tl.rank_genes_groups(a, "group", **options)
    want, got = on_cpu.uns["rank_genes_groups"], on_gpu.uns["rank_genes_groups"]
    assert set(want) == set(got)
    for key in ("names", "scores", "pvals", "pvals_adj", "logfoldchanges"):
        assert isinstance(got[key], np.recarray)
        np.testing.assert_array_equal(got[key], want[key])
    if "pts" in want:
        pd.testing.assert_frame_equal(got["pts"], want["pts"])
        pd.testing.assert_frame_equal(got["pts_rest"], want["pts_rest"])


@pytest.mark.parametrize("layout", list(TO_GPU))
def test_score_genes(layout):
    # The bins of control genes come from exact means on both: doubles leave NumPy's means no room to differ.
    on_cpu, on_gpu = pair(layout, "float64")
    genes = [str(i) for i in range(0, 120, 9)]
    for a in (on_cpu, on_gpu):
        scw.tl.score_genes(a, genes, ctrl_size=10, n_bins=5)
        scw.tl.score_genes_cell_cycle(a, s_genes=genes[:6], g2m_genes=genes[6:], n_bins=5)
    for key in ("score", "S_score", "G2M_score"):
        assert on_gpu.obs[key].dtype == np.float64
        np.testing.assert_array_equal(on_gpu.obs[key], on_cpu.obs[key])
    assert on_gpu.obs["score"].abs().max() > 0.01
    np.testing.assert_array_equal(on_gpu.obs["phase"], on_cpu.obs["phase"])


def test_nan_and_infinity_are_named():
    _, a = pair("csr")
    a.X.data[7] = np.nan
    with pytest.raises(ValueError, match="has NaN, infinite or too large values"):
        scw.tl.rank_genes_groups(a, "group")
