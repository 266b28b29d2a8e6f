"""Highly variable genes and Pearson residuals with CuPy matrices: the CPU's columns, bit for bit."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from conftest import simulated_counts
from gpu import TO_GPU, cp, csp

import scwarp as scw

FLAVORS = ["seurat", "cell_ranger", "seurat_v3", "seurat_v3_paper", "pearson_residuals", "poisson_gene_selection"]


def pair(flavor: str, layout: str, *, layer: str | None = None) -> tuple[ad.AnnData, ad.AnnData]:
    x = simulated_counts(700, 300, seed=8)
    x = x[:, x.getnnz(axis=0) > 3]
    if flavor in ("seurat", "cell_ranger"):
        x = scw.pp.log1p(scw.pp.normalize_total(ad.AnnData(x), target_sum=1e3, copy=True).X)
    batch = np.array(["b", "a", "c"], object)[np.arange(x.shape[0]) * 7 % 11 % 3]
    batch[::97] = None
    obs = pd.DataFrame({"batch": pd.Categorical(batch)}, index=np.arange(x.shape[0]).astype(str))
    out = []
    for matrix in (x.toarray() if layout == "dense" else sp.csr_matrix(x), TO_GPU[layout](x)):
        a = ad.AnnData(None if layer else matrix, obs=obs, shape=x.shape if layer else None)
        if layer:
            a.layers[layer] = matrix
        a.var_names = [f"g{i * 7919 % 1000}" for i in range(x.shape[1])]
        out.append(a)
    return out[0], out[1]


@pytest.mark.parametrize("layout", list(TO_GPU))
@pytest.mark.parametrize("flavor", FLAVORS)
@pytest.mark.parametrize("batch_key", [None, "batch"])
def test_columns_have_the_bits_of_the_cpu(flavor, layout, batch_key):
    cpu, gpu = pair(flavor, layout)
    for a in (cpu, gpu):
        scw.pp.highly_variable_genes(a, flavor=flavor, n_top_genes=60, batch_key=batch_key)
    assert cpu.var["highly_variable"].sum() == 60
    pd.testing.assert_frame_equal(cpu.var, gpu.var, check_exact=True)


@pytest.mark.parametrize("flavor", ["seurat", "cell_ranger"])
def test_cutoffs_layer_and_subset(flavor):
    cpu, gpu = pair(flavor, "csr", layer="log")
    frames = [
        scw.pp.highly_variable_genes(
            a, flavor=flavor, layer="log", min_disp=0.1, batch_key="batch", inplace=False, subset=True
        )
        for a in (cpu, gpu)
    ]
    assert 0 < len(frames[0]) < cpu.n_vars
    pd.testing.assert_frame_equal(*frames, check_exact=True)


def test_subset_in_place():
    cpu, gpu = pair("seurat_v3", "csr")
    for a in (cpu, gpu):
        scw.pp.highly_variable_genes(a, flavor="seurat_v3", n_top_genes=40, subset=True)
    assert gpu.shape == (cpu.n_obs, 40) and type(gpu.X) is csp.csr_matrix
    np.testing.assert_array_equal(cpu.X.toarray(), gpu.X.get().toarray())


@pytest.mark.parametrize("layout", list(TO_GPU))
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_pearson_residuals(layout, dtype):
    x = simulated_counts(200, 150, seed=9).astype(dtype)
    x = sp.csr_matrix(x.multiply(np.arange(200)[:, None] % 20 != 0))  # cells without counts give NaN
    x.eliminate_zeros()
    cpu = ad.AnnData(x.toarray() if layout == "dense" else x)
    gpu = ad.AnnData(TO_GPU[layout](x))
    for a in (cpu, gpu):
        scw.pp.normalize_pearson_residuals(a, theta=50)
    assert isinstance(gpu.X, cp.ndarray) and gpu.X.dtype == dtype
    np.testing.assert_array_equal(cpu.X, gpu.X.get())
