from __future__ import annotations

import anndata as ad
import numpy as np
import pytest
import scanpy as sc
from conftest import dense

import scwarp as scw


@pytest.mark.parametrize("base", [None, 2, 10])
def test_layouts(counts, any_layout, base):
    a = ad.AnnData(any_layout(counts.X))
    want = np.log1p(dense(counts.X).astype(np.float64)) / (1 if base is None else np.log(base))
    integer = a.X.dtype.kind == "i"
    scw.pp.log1p(a, base=base)
    assert a.uns["log1p"] == {"base": base}
    assert a.X.dtype == (np.float64 if integer or a.X.dtype == np.float64 else np.float32)
    np.testing.assert_allclose(dense(a.X), want, rtol=2e-7 if a.X.dtype == np.float32 else 1e-15)


def test_equals_scanpy(counts):
    b = counts.copy()
    scw.pp.log1p(counts)
    sc.pp.log1p(b)
    np.testing.assert_allclose(dense(counts.X), dense(b.X), rtol=1e-6)


def test_matrix_in_matrix_out(counts):
    before = counts.X.copy()
    r = scw.pp.log1p(counts.X)
    np.testing.assert_allclose(r.data, np.log1p(before.data), rtol=2e-7)
    assert (before != counts.X).nnz == 0
    np.testing.assert_array_equal(scw.pp.log1p(counts, inplace=False).data, r.data)
    assert "log1p" not in counts.uns


def test_special_values():
    x = np.array([[0.0, -1.0, -2.0, np.nan, np.inf, 1e-30]], np.float32)
    r = scw.pp.log1p(x)
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(r, np.log1p(x))


def test_a_masked_array_is_refused(counts):
    x = np.ma.masked_less(dense(counts.X), 2)
    for call in (scw.pp.log1p, scw.pp.sqrt, scw.pp.scale, scw.pp.pca, lambda v: scw.pp.filter_cells(v, min_genes=3)):
        with pytest.raises(TypeError, match=r"MaskedArray.*filled\(0\)"):
            call(x)


def test_errors(counts):
    with pytest.raises(ValueError, match="base must be positive"):
        scw.pp.log1p(counts, base=1)
    with pytest.raises(ValueError, match="layer and obsm need an AnnData"):
        scw.pp.log1p(counts.X, layer="l")
    assert "log1p" not in counts.uns
