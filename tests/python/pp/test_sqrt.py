from __future__ import annotations

import anndata as ad
import numpy as np
import pytest
import scanpy as sc
from conftest import dense

import scwarp as scw


def test_layouts(counts, any_layout):
    a = ad.AnnData(any_layout(counts.X))
    b = a.copy()
    fmt = getattr(a.X, "format", None)
    scw.pp.sqrt(a)
    sc.pp.sqrt(b)
    assert getattr(a.X, "format", None) == fmt
    assert a.X.dtype == b.X.dtype
    np.testing.assert_array_equal(dense(a.X), dense(b.X))
    assert not a.uns


def test_targets(counts):
    before = dense(counts.X).copy()
    c = scw.pp.sqrt(counts, copy=True)
    np.testing.assert_array_equal(dense(c.X), np.sqrt(before))
    np.testing.assert_array_equal(dense(scw.pp.sqrt(counts, inplace=False)), np.sqrt(before))
    np.testing.assert_array_equal(scw.pp.sqrt(before), np.sqrt(before))
    counts.layers["l"], counts.obsm["o"] = counts.X.copy(), before.copy()
    scw.pp.sqrt(counts, layer="l")
    scw.pp.sqrt(counts, obsm="o")
    np.testing.assert_array_equal(dense(counts.layers["l"]), np.sqrt(before))
    np.testing.assert_array_equal(counts.obsm["o"], np.sqrt(before))
    np.testing.assert_array_equal(dense(counts.X), before)
    v = counts[3:20]
    scw.pp.sqrt(v)
    np.testing.assert_array_equal(dense(v.X), np.sqrt(before[3:20]))
    np.testing.assert_array_equal(dense(counts.X), before)


@pytest.mark.parametrize("module", [sc, scw])
def test_what_shares_the_matrix_keeps_its_values(counts, any_layout, module):
    a = ad.AnnData(any_layout(counts.X))
    before = dense(a.X).copy()
    a.layers["counts"] = a.X
    module.pp.sqrt(a)
    np.testing.assert_array_equal(dense(a.layers["counts"]), before)
    np.testing.assert_array_equal(dense(a.X), np.sqrt(before))


def test_errors(counts):
    with pytest.raises(KeyError, match="no layer"):
        scw.pp.sqrt(counts, layer="x")
    with pytest.raises(ValueError, match="copy=True"):
        scw.pp.sqrt(counts, copy=True, inplace=False)
    assert np.isnan(scw.pp.sqrt(np.array([[-1.0, 4.0]]))[0, 0])
