"""QC, filters and the check of indices with CuPy matrices: the CPU's columns, bit for bit."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from conftest import simulated_counts
from gpu import TO_GPU, cp, csp

import scwarp as scw


def pair(x: sp.csr_matrix, layout: str) -> tuple[ad.AnnData, ad.AnnData]:
    var = pd.DataFrame({"mt": np.arange(x.shape[1]) % 17 == 3, "ribo": np.arange(x.shape[1]) % 5 == 1})
    var.index = var.index.astype(str)
    cpu = ad.AnnData(x.toarray() if layout == "dense" else x.copy(), var=var)
    return cpu, ad.AnnData(TO_GPU[layout](x), var=var)


@pytest.mark.parametrize("layout", list(TO_GPU))
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("scale", [1, 0.37])
def test_metrics_have_the_bits_of_the_cpu(layout, dtype, scale):
    x = simulated_counts(400, 250, seed=3).astype(dtype)
    x.data = (x.data * scale).astype(dtype)
    x.data[::50] = 0  # explicit zeros are not counted
    cpu, gpu = pair(x, layout)
    options = {"qc_vars": ["mt", "ribo"], "percent_top": (5, 50, 200)}
    for want, got in zip(*(scw.pp.calculate_qc_metrics(a, **options) for a in (cpu, gpu)), strict=True):
        assert want.to_numpy().any()
        pd.testing.assert_frame_equal(want, got, check_exact=True)
    for a in (cpu, gpu):
        scw.pp.calculate_qc_metrics(a, inplace=True, **options)
    pd.testing.assert_frame_equal(cpu.obs, gpu.obs, check_exact=True)
    pd.testing.assert_frame_equal(cpu.var, gpu.var, check_exact=True)


@pytest.mark.parametrize("layout", list(TO_GPU))
@pytest.mark.parametrize("threshold", [{"min_counts": 200}, {"min_genes": 60}, {"max_counts": 300}, {"max_genes": 90}])
def test_filter_cells(layout, threshold):
    x = simulated_counts(300, 200, seed=4)
    cpu, gpu = pair(x, layout)
    for want, got in zip(*(scw.pp.filter_cells(a.X, **threshold) for a in (cpu, gpu)), strict=True):
        assert isinstance(got, np.ndarray)
        np.testing.assert_array_equal(want, got)
    for a in (cpu, gpu):
        scw.pp.filter_cells(a, **threshold)
    pd.testing.assert_frame_equal(cpu.obs, gpu.obs, check_exact=True)
    assert cpu.shape == gpu.shape


@pytest.mark.parametrize("layout", list(TO_GPU))
@pytest.mark.parametrize("threshold", [{"min_counts": 100}, {"min_cells": 40}, {"max_counts": 90}, {"max_cells": 80}])
def test_filter_genes(layout, threshold):
    x = simulated_counts(300, 200, seed=5)
    cpu, gpu = pair(x, layout)
    for want, got in zip(*(scw.pp.filter_genes(a.X, **threshold) for a in (cpu, gpu)), strict=True):
        assert isinstance(got, np.ndarray)
        np.testing.assert_array_equal(want, got)
    for a in (cpu, gpu):
        scw.pp.filter_genes(a, **threshold)
    pd.testing.assert_frame_equal(cpu.var, gpu.var, check_exact=True)
    assert cpu.shape == gpu.shape


def unchecked(data, indices, indptr, shape):
    x = csp.csr_matrix((cp.asarray(data), cp.asarray(indices), cp.asarray(indptr)), shape=shape)
    for name in ("_has_canonical_format", "_has_sorted_indices"):
        vars(x).pop(name, None)
    return x


def test_indices_are_checked_once():
    x = simulated_counts(60, 40, seed=6)
    good = unchecked(x.data, x.indices, x.indptr, x.shape)
    scw.pp.filter_genes(good, min_cells=1)
    assert vars(good)["_has_canonical_format"] is True
    data = np.array([1, 2, 3, 4], np.float32)
    twice = unchecked(data, np.array([2, 0, 1, 1], np.int32), np.array([0, 2, 4], np.int32), (2, 3))
    _, number = scw.pp.filter_genes(twice, min_counts=1)
    np.testing.assert_array_equal(number, [2, 7, 1])
    outside = unchecked(data, np.array([0, 2, 1, 9], np.int32), np.array([0, 2, 4], np.int32), (2, 3))
    with pytest.raises(ValueError, match="index outside of its shape"):
        scw.pp.filter_genes(outside, min_counts=1)
