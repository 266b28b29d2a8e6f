"""Cells and genes selected while reading: what AnnData's subset of the whole gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from formats import FORMATS, read, whole, write

import scwarp as scw


def example(n: int = 900, m: int = 130) -> ad.AnnData:
    r = np.random.default_rng(0)
    x = sp.random(n, m, 0.2, "csr", dtype=np.float32, random_state=0)
    x.data = np.ceil(x.data * 9)
    a = ad.AnnData(x)
    a.raw = a
    a.obs["label"] = pd.Categorical(r.choice(["a", "b", "c"], n))
    a.obs.loc[a.obs_names[:5], "label"] = "c"
    a.var["v"] = np.arange(m)
    a.layers["csc"] = sp.csc_matrix(x * 2)
    a.layers["dense"] = r.normal(size=(n, m)).astype(np.float32)
    a.layers["int"] = (x * 3).astype(np.int64)
    a.layers["double"] = (x * 0.1).astype(np.float64)
    a.obsm["pca"] = r.normal(size=(n, 3))
    a.varm["w"] = r.normal(size=(m, 2))
    a.obsp["g"] = sp.random(n, n, 0.01, "csr", random_state=1)
    a.uns["label_colors"] = ["#000000", "#111111", "#222222"]
    return a


def same(a: Any, b: Any) -> None:
    if sp.issparse(b):
        assert a.format == b.format and a.dtype == b.dtype and a.shape == b.shape
        assert (a != b).nnz == 0
    else:
        np.testing.assert_array_equal(a, b)
        assert a.dtype == b.dtype


MASKS: dict[str, Any] = {
    "none": lambda n: None,
    "half": lambda n: np.arange(n) % 2 == 0,
    "few": lambda n: np.array([0, 1, n // 3, n - 1]),
    "block": lambda n: np.arange(n // 4, n // 2),
    "all": lambda n: np.ones(n, bool),
    "nothing": lambda n: np.zeros(n, bool),
}


@pytest.mark.parametrize("obs", MASKS)
@pytest.mark.parametrize("var", ["none", "few", "half", "nothing"])
@pytest.mark.parametrize("form", ["gzip", *FORMATS])
def test_selection(tmp_path: Path, obs: str, var: str, form: str) -> None:
    a = example()
    if form == "gzip":
        path = tmp_path / "a.h5ad"
        a.write_h5ad(path, compression=form)
    else:
        path = write(a, tmp_path, form)
    o, v = MASKS[obs](a.n_obs), MASKS[var](a.n_vars)
    got = read(path, obs_mask=o, var_mask=v)
    want = whole(path)[slice(None) if o is None else o, slice(None) if v is None else v].copy()
    assert got.shape == want.shape
    same(got.X, want.X)
    assert set(got.layers) == set(want.layers)
    for k in want.layers:
        same(got.layers[k], want.layers[k])
    pd.testing.assert_frame_equal(got.obs, want.obs)
    pd.testing.assert_frame_equal(got.var, want.var)
    for slot in ("obsm", "varm", "obsp"):
        for k, x in getattr(want, slot).items():
            same(getattr(got, slot)[k], x)
    same(got.raw.X, want.raw.X)
    assert list(got.raw.var_names) == list(want.raw.var_names)
    assert list(got.uns["label_colors"]) == list(want.uns["label_colors"])


def test_chunks_that_hold_many_rows(tmp_path: Path) -> None:
    path = tmp_path / "a.h5ad"
    x = sp.random(3000, 700, 0.3, "csr", dtype=np.float32, random_state=3)
    with h5py.File(path, "w") as f:
        ad.io.write_elem(f, "/", ad.AnnData(x), dataset_kwargs={"chunks": None})
        for name in ("data", "indices"):
            values = f[f"X/{name}"][:]
            del f[f"X/{name}"]
            f["X"].create_dataset(name, data=values, chunks=(1777,), compression="gzip")
    r = np.random.default_rng(0)
    for share in (0.002, 0.1, 0.9):
        obs, var = r.random(3000) < share, r.random(700) < 0.5
        got = scw.read_h5ad(path, obs_mask=obs, var_mask=var)
        same(got.X, x[obs][:, var])


@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize("layout", ["csr", "dense"])
def test_only_chunks_with_selected_values_are_read(tmp_path: Path, layout: str, compressed: bool) -> None:
    zarr = pytest.importorskip("zarr", minversion="3")
    x = example(3000, 200).X
    a = ad.AnnData(x if layout == "csr" else x.toarray())
    a.write_zarr(tmp_path / "a.zarr")
    root = zarr.open_group(tmp_path / "a.zarr", mode="r+", use_consolidated=False)
    compressors = "auto" if compressed else None
    if layout == "csr":
        for name in ("data", "indices"):
            values = root["X"][name][:]
            root["X"].create_array(name, data=values, chunks=(500,), compressors=compressors, overwrite=True)
    else:
        attributes = dict(root["X"].attrs)
        root.create_array(
            "X", data=a.X, chunks=(40, 30), compressors=compressors, attributes=attributes, overwrite=True
        )
    zarr.consolidate_metadata(tmp_path / "a.zarr")
    obs, var = np.zeros(3000, bool), np.arange(200) < 20
    obs[[1000, 1001, 2999]] = True
    # All others are not what they should be.
    indptr = x.indptr
    needed = {int(p) // 500 for i in np.flatnonzero(obs) for p in range(indptr[i], indptr[i + 1])}
    broken = 0
    for part in ("data", "indices") if layout == "csr" else ("",):
        for chunk in (tmp_path / "a.zarr/X" / part).iterdir():
            if not chunk.name[0].isdigit():
                continue
            at = [int(k) for k in chunk.name.split(".")]
            if at[0] not in needed if layout == "csr" else at[0] not in (1000 // 40, 2999 // 40) or at[1] > 0:
                chunk.write_bytes(b"nothing")
                broken += 1
    assert broken > 20
    got = scw.read_zarr(tmp_path / "a.zarr", obs_mask=obs, var_mask=var)
    same(got.X, a.X[obs][:, var])
    with pytest.raises(ValueError, match="chunk"):
        scw.read_zarr(tmp_path / "a.zarr")


@pytest.mark.parametrize("form", FORMATS)
def test_wrong_masks(tmp_path: Path, form: str) -> None:
    path = write(example(50, 20), tmp_path, form)
    with pytest.raises(ValueError, match=r"obs_mask has shape \(3,\) \(expected \(50,\)\)"):
        read(path, obs_mask=np.ones(3, bool))
    for bad in ([3, 2], [1, 1], [0, 50], [-1, 3]):
        with pytest.raises(ValueError, match="positions of obs_mask must rise"):
            read(path, obs_mask=bad)
    with pytest.raises(TypeError, match="var_mask must be booleans or positions"):
        read(path, var_mask=["a", "b"])
