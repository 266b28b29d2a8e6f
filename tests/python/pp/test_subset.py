from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from conftest import dense

import scwarp as scw


def _full(x, counts):
    a = ad.AnnData(x, obs=counts.obs.copy(), var=counts.var.copy())
    n, m = a.shape
    # Category "c" occurs in the first cells only, and "d" nowhere.
    a.obs["kind"] = pd.Categorical(np.where(np.arange(n) < 5, "c", "a"), categories=["a", "c", "d"])
    a.uns["kind_colors"] = ["red", "green", "blue"]
    a.var["pick"] = np.arange(m) % 3 == 0
    a.layers["l"] = a.X.copy()
    a.obsm["o"] = np.arange(n * 2.0).reshape(-1, 2)
    a.obsm["frame"] = pd.DataFrame({"z": np.arange(n)}, index=a.obs_names)
    a.obsm["ints"] = np.arange(n * 2).reshape(-1, 2)
    a.varm["v"] = np.arange(m * 2.0).reshape(-1, 2)
    a.obsp["p"] = sp.random(n, n, 0.01, "csr", random_state=0)
    a.varp["q"] = np.arange(m * m, dtype=np.float32).reshape(m, m)
    a.uns["u"] = {"k": 1}
    a.raw = a
    return a


def _same(a, b):
    assert a.shape == b.shape
    assert type(a.X) is type(b.X) and a.X.dtype == b.X.dtype
    np.testing.assert_array_equal(dense(a.X), dense(b.X))
    np.testing.assert_array_equal(dense(a.layers["l"]), dense(b.layers["l"]))
    pd.testing.assert_frame_equal(a.obs, b.obs)
    pd.testing.assert_frame_equal(a.var, b.var)
    for store in ("obsm", "varm", "obsp", "varp"):
        mine, theirs = getattr(a, store), getattr(b, store)
        assert set(mine) == set(theirs)
        for key in mine:
            if isinstance(mine[key], pd.DataFrame):
                pd.testing.assert_frame_equal(mine[key], theirs[key])
            else:
                np.testing.assert_array_equal(dense(mine[key]), dense(theirs[key]))
    np.testing.assert_array_equal(dense(a.raw.X), dense(b.raw.X))
    assert list(a.raw.var_names) == list(b.raw.var_names)
    assert list(a.uns["kind_colors"]) == list(b.uns["kind_colors"])
    assert a.uns["u"] == b.uns["u"]


@pytest.mark.parametrize("which", ["cells", "genes", "both"])
@pytest.mark.parametrize("copy", [True, False])
def test_is_what_anndata_keeps(counts, any_layout, which, copy):
    a = _full(any_layout(counts.X), counts)
    cells = np.arange(a.n_obs) >= 5 if which != "genes" else None
    genes = a.var["pick"].to_numpy() if which != "cells" else None
    want = a[slice(None) if cells is None else cells, slice(None) if genes is None else genes].copy()
    before = a.copy()
    got = scw.pp.subset(a, cells=cells, genes=None if genes is None else "pick", copy=copy)
    if copy:
        _same(a, before)
        got.obsm["o"][:] = -1
        got.obs["new"] = 1
        np.testing.assert_array_equal(a.obsm["o"], before.obsm["o"])
        assert "new" not in a.obs
        got = scw.pp.subset(a, cells=cells, genes=genes, copy=True)
    else:
        assert got is None
        got = a
    _same(got, want)
    got.obs["later"] = 1  # an ordinary object, not a view
    assert not got.is_view and got[:3].copy().n_obs == 3


def test_keeping_everything_copies_nothing(counts):
    a = counts.copy()
    x = a.X
    scw.pp.subset(a, cells=np.ones(a.n_obs, bool), genes=np.ones(a.n_vars, bool))
    assert a.X is x


def test_nothing_kept(counts):
    a = counts.copy()
    scw.pp.subset(a, cells=np.zeros(a.n_obs, bool))
    assert a.shape == (0, counts.n_vars)


def test_a_view_becomes_real(counts):
    view = counts[10:50]
    scw.pp.subset(view, genes=np.arange(view.n_vars) % 2 == 0)
    assert not view.is_view
    np.testing.assert_array_equal(dense(view.X), dense(counts.X)[10:50, ::2])


def test_errors(counts):
    with pytest.raises(ValueError, match="is not a column"):
        scw.pp.subset(counts, cells="nothing")
    with pytest.raises(ValueError, match="must be boolean"):
        scw.pp.subset(counts, genes=np.arange(counts.n_vars))
    with pytest.raises(ValueError, match="has shape"):
        scw.pp.subset(counts, genes=np.ones(3, bool))
