"""Subsets of CuPy matrices: made on the device, equal to the host's."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pytest
from conftest import simulated_counts
from gpu import TO_GPU_OR_FORTRAN, cp, csp, host

import scwarp as scw


@pytest.mark.parametrize("layout", list(TO_GPU_OR_FORTRAN))
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_subset_is_the_hosts(layout, dtype):
    x = simulated_counts(300, 200, seed=1).astype(dtype)
    a = ad.AnnData(TO_GPU_OR_FORTRAN[layout](x))
    a.layers["l"] = TO_GPU_OR_FORTRAN[layout](x)
    a.obsm["o"] = cp.arange(600.0).reshape(300, 2)
    cells, genes = np.arange(300) % 3 != 0, np.arange(200) % 4 == 1
    b = scw.pp.subset(a, cells=cells, genes=genes, copy=True)
    assert a.shape == (300, 200)
    for out in (b, a):
        if out is a:
            scw.pp.subset(a, cells=cells, genes=genes)
        assert type(out.X).__module__.startswith("cupy") and out.X.dtype == dtype
        np.testing.assert_array_equal(host(out.X), x.toarray()[cells][:, genes])
        np.testing.assert_array_equal(host(out.layers["l"]), x.toarray()[cells][:, genes])
        np.testing.assert_array_equal(host(out.obsm["o"]), np.arange(600.0).reshape(300, 2)[cells])


def test_keeping_everything_copies_nothing():
    a = ad.AnnData(csp.csr_matrix(simulated_counts(100, 50)))
    x = a.X
    scw.pp.subset(a, cells=np.ones(100, bool), genes=np.ones(50, bool))
    assert a.X is x


def test_filter_highly_variable():
    x = simulated_counts(100, 50)
    a = ad.AnnData(csp.csr_matrix(x))
    a.var["highly_variable"] = np.arange(50) < 20
    scw.pp.filter_highly_variable(a)
    np.testing.assert_array_equal(host(a.X), x.toarray()[:, :20])
    assert a.X.has_canonical_format
