"""Matrices to the GPU and back: containers, dtypes and layouts are kept, and so is every byte."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pytest
import scipy.sparse as sp
from conftest import simulated_counts
from gpu import cp, csp

import scwarp as scw


@pytest.mark.parametrize("n_bytes", [1, 1000, (1 << 20) + 3, (9 << 20) + 1, 300 << 20])
@pytest.mark.parametrize("n_threads", [1, 3, 0])
def test_every_byte_arrives(n_bytes, n_threads):
    x = np.random.default_rng(n_bytes).integers(0, 256, n_bytes).astype(np.uint8)
    with scw.settings.override(n_threads=n_threads):
        y = scw.get.X_to_GPU(x)
        assert isinstance(y, cp.ndarray)
        np.testing.assert_array_equal(y.get(), x)
        np.testing.assert_array_equal(scw.get.X_to_CPU(y[::-1]), x[::-1])
        np.testing.assert_array_equal(scw.get.X_to_CPU(y), x)


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "int32", "int64", "uint8", "bool", "complex64"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_dense(dtype, order):
    x = np.asarray(simulated_counts(200, 90).toarray().astype(dtype), order=order)
    y = scw.get.X_to_GPU(x)
    assert isinstance(y, cp.ndarray) and y.dtype == x.dtype
    assert y.flags.f_contiguous == (order == "F")
    z = scw.get.X_to_CPU(y)
    assert z.dtype == x.dtype and z.flags.f_contiguous == (order == "F") and z.flags.writeable
    np.testing.assert_array_equal(z, x)
    assert scw.get.X_to_GPU(y) is y


@pytest.mark.parametrize("kind", [sp.csr_matrix, sp.csc_matrix, sp.csr_array, sp.csc_array])
@pytest.mark.parametrize("dtype", ["float32", "float64", "bool"])
@pytest.mark.parametrize("index", ["int32", "int64"])
def test_sparse(kind, dtype, index):
    x = kind(simulated_counts(300, 200).astype(dtype))
    x.indptr, x.indices = x.indptr.astype(index), x.indices.astype(index)
    y = scw.get.X_to_GPU(x)
    assert type(y) is (csp.csr_matrix if x.format == "csr" else csp.csc_matrix)
    assert y.dtype == x.dtype and y.shape == x.shape
    z = scw.get.X_to_CPU(y)
    assert type(z) is (sp.csr_matrix if x.format == "csr" else sp.csc_matrix) and z.dtype == x.dtype
    np.testing.assert_array_equal(z.indptr, x.indptr)
    np.testing.assert_array_equal(z.indices, x.indices)
    np.testing.assert_array_equal(z.data, x.data)
    for part in (z.data, z.indices, z.indptr):  # SciPy has not copied what was brought
        assert not part.flags.owndata


def test_sparse_integers_become_floats():
    x = simulated_counts(50, 30).astype(np.int64)
    assert scw.get.X_to_GPU(x).dtype == np.float32
    x.data[0] = 2**24 + 1
    y = scw.get.X_to_GPU(x)
    assert y.dtype == np.float64
    np.testing.assert_array_equal(y.get().toarray(), x.toarray())


@pytest.mark.parametrize("shape", [(0, 5), (5, 0), (1, 1)])
def test_nothing_to_copy(shape):
    for x in (np.ones(shape, np.float32), sp.csr_matrix(shape, dtype=np.float32)):
        y = scw.get.X_to_CPU(scw.get.X_to_GPU(x))
        assert y.shape == shape and type(y) is type(x)


def test_anndata():
    a = ad.AnnData(simulated_counts(60, 40))
    a.layers["dense"] = a.X.toarray()
    a.obsm["o"] = np.zeros((60, 2))
    b = scw.get.anndata_to_GPU(a, copy=True)
    assert sp.issparse(a.X) and isinstance(b.X, csp.csr_matrix) and isinstance(b.layers["dense"], np.ndarray)
    assert scw.get.anndata_to_GPU(a, layer="dense") is None
    assert sp.issparse(a.X) and isinstance(a.layers["dense"], cp.ndarray)
    scw.get.anndata_to_GPU(a, convert_all=True)
    assert isinstance(a.X, csp.csr_matrix) and isinstance(a.obsm["o"], np.ndarray)
    scw.get.anndata_to_CPU(a, convert_all=True)
    np.testing.assert_array_equal(a.X.toarray(), a.layers["dense"])
    view = b[:10]
    scw.get.anndata_to_CPU(view)
    assert not view.is_view and view.X.shape == (10, 40)


def test_callers_stream():
    x = np.arange(40 << 20, dtype=np.uint8)
    stream = cp.cuda.Stream(non_blocking=True)
    with stream:
        y = scw.get.X_to_GPU(x)
        y += 1  # queued behind the copy
        z = scw.get.X_to_CPU(y)
    np.testing.assert_array_equal(z, x + 1)
