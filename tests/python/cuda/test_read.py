"""read_h5ad(device="cuda"): what the host reader gives, as CuPy matrices."""

from __future__ import annotations

import anndata as ad
import h5py
import numpy as np
import pytest
import scipy.sparse as sp
from gpu import cp, csp

import scwarp as scw


def example():
    x = sp.random(3000, 2000, 0.1, "csr", dtype=np.float32, random_state=0)
    x.data = np.ceil(x.data * 9)
    a = ad.AnnData(x)
    a.layers["int"] = x.astype(np.int64)
    a.layers["csc"] = x.tocsc()
    a.layers["dense"] = x.toarray()
    a.layers["double"] = x.astype(np.float64)
    big = x.astype(np.int64)
    big.data[5] = 2**25 + 1
    a.layers["big"] = big
    return a


def dense(x):
    x = x.get() if hasattr(x, "get") else x
    return x.toarray() if sp.issparse(x) else x


@pytest.mark.parametrize("compression", ["gzip", "lzf", None])
@pytest.mark.parametrize("n_threads", [1, 3, 0])
def test_x_and_layers(tmp_path, compression, n_threads):
    path = tmp_path / "a.h5ad"
    want = example()
    want.write_h5ad(path, compression=compression)
    with scw.settings.override(n_threads=n_threads):
        got = scw.read_h5ad(path, device="cuda", layers_on_device=True)
        only_x = scw.read_h5ad(path, device="cuda")
    assert isinstance(got.X, csp.csr_matrix)
    assert isinstance(got.layers["csc"], csp.csr_matrix)
    assert isinstance(got.layers["dense"], cp.ndarray)
    np.testing.assert_array_equal(dense(got.X), dense(want.X))
    np.testing.assert_array_equal(dense(only_x.X), dense(want.X))
    for k, v in want.layers.items():
        np.testing.assert_array_equal(dense(got.layers[k]), dense(v), err_msg=k)
        assert not hasattr(only_x.layers[k], "get") or sp.issparse(only_x.layers[k])


def test_a_selection(tmp_path):
    path = tmp_path / "a.h5ad"
    want = example()
    want.write_h5ad(path, compression="gzip")
    obs, var = np.arange(3000) % 3 == 0, np.arange(0, 2000, 7)
    got = scw.read_h5ad(path, obs_mask=obs, var_mask=var, device="cuda")
    assert isinstance(got.X, csp.csr_matrix)
    np.testing.assert_array_equal(dense(got.X), want[obs, var].X.toarray())


def test_unsorted_and_damaged_indices(tmp_path):
    path = tmp_path / "a.h5ad"
    x = example().X
    ad.AnnData(x).write_h5ad(path)
    with h5py.File(path, "a") as f:
        for name in ("indices", "data"):
            values = f[f"X/{name}"][:]
            values[:20] = values[:20][::-1]
            f[f"X/{name}"][:] = values
    np.testing.assert_array_equal(dense(scw.read_h5ad(path, device="cuda").X), x.toarray())
    with h5py.File(path, "a") as f:
        f["X/indices"][100_000] = 2000
    with pytest.raises(scw.DataError, match="index 2000 at position 100000"):
        scw.read_h5ad(path, device="cuda")
