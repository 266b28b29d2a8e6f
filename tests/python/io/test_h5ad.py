"""h5ad: every encoding of anndata goes through the C++ reader and writer and comes back the same, key by key."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from same_anndata import check_same_adata, copy

import scwarp as scw
from scwarp import _core
from scwarp._context import make_context
from scwarp.io import _anndata, _h5ad
from scwarp.io._h5ad import _refuse_duplicates

N, M = 37, 23


def round_trip(a: ad.AnnData, folder: Path, **kwargs: Any) -> ad.AnnData:
    a.write_h5ad(folder / "a.h5ad", **kwargs)
    copy(folder / "a.h5ad", folder / "b.h5ad")
    expected, got = ad.read_h5ad(folder / "a.h5ad"), ad.read_h5ad(folder / "b.h5ad")
    check_same_adata(expected, got)
    return got


def counts(n: int = N, m: int = M, dtype: Any = np.float32) -> np.ndarray:
    r = np.random.default_rng(1)
    x = r.poisson(0.4, (n, m)).astype(dtype)
    if n > 3:
        x[3] = 0
    return x


def everything() -> ad.AnnData:
    """One of each."""
    r = np.random.default_rng(0)
    a = ad.AnnData(sp.csr_matrix(counts()))
    a.obs_names = [f"zelle_{i}_é" for i in range(N)]
    a.var_names = [f"β{i}" for i in range(M)]
    a.obs.index.name = "barcode"
    n = np.arange(N)
    for dtype in (
        "int8",
        "int16",
        "int32",
        "int64",
        "uint8",
        "uint16",
        "uint32",
        "uint64",
        "float16",
        "float32",
        "float64",
    ):
        a.obs[dtype] = (n - (0 if dtype.startswith("u") else 5)).astype(dtype)
    a.obs["uint64"] = np.full(N, 2**64 - 3, np.uint64)
    a.obs["nan"] = np.where(n % 3 == 0, np.nan, n)
    a.obs["inf"] = np.where(n % 3 == 0, np.inf, -0.0)
    a.obs["bool"] = n % 2 == 0
    a.obs["complex"] = n + 1j
    a.obs["text"] = [f"t{i % N}{'ü' * (i % 3)}" for i in n]
    a.obs["cat"] = pd.Categorical.from_codes([-1 if i == 2 else i % 3 for i in n], ["b", "a", "ç"])
    a.obs["cat ordered"] = pd.Categorical.from_codes(n % 2, ["lo", "hi"], ordered=True)
    a.obs["cat int"] = pd.Categorical(n % 4)
    a.obs["cat float"] = pd.Categorical(n % 3 / 2)
    a.obs["cat bool"] = pd.Categorical(n % 2 == 0)
    a.obs["cat unused"] = pd.Categorical.from_codes(n * 0, ["used", "not used"])
    a.obs["cat many"] = pd.Categorical([f"c{i}" for i in n])
    a.obs["Int64"] = pd.array([None if i == 4 else i for i in n], dtype="Int64")
    a.obs["UInt8"] = pd.array([None if i == 4 else i for i in n], dtype="UInt8")
    a.obs["boolean"] = pd.array([None if i == 5 else bool(i % 2) for i in n], dtype="boolean")
    a.obs["name with spaces and ünïcode"] = n
    a.var["highly_variable"] = np.arange(M) % 2 == 0
    a.layers["csc"] = sp.csc_matrix(counts())
    a.layers["float64"] = sp.csr_matrix(counts(dtype=np.float64) * 0.1)
    for dtype in ("int8", "int32", "int64", "uint16", "bool", "float16"):
        a.layers[dtype] = counts().astype(dtype)
    for dtype in ("int64", "uint32"):
        a.layers[f"csr {dtype}"] = sp.csr_matrix(counts(dtype=dtype))
    a.layers["csc int32"] = sp.csc_matrix(counts(dtype=np.int32))
    a.layers["large counts"] = sp.csr_matrix(counts(dtype=np.int64) * (2**40 + 1))
    a.layers["fortran"] = np.asfortranarray(r.normal(size=(N, M)))
    a.obsm["X_pca"] = r.normal(size=(N, 5)).astype(np.float32)
    a.obsm["int"] = r.integers(-9, 9, (N, 2))
    a.obsm["huge int"] = np.full((N, 2), 2**62 + 1)
    a.obsm["three"] = r.normal(size=(N, 3, 2))
    a.obsm["complex"] = r.normal(size=(N, 2)) + 1j
    a.obsm["frame"] = pd.DataFrame({"x": n, "k": pd.Categorical(n % 2)}, index=a.obs_names)
    a.obsm["no columns"] = pd.DataFrame(index=a.obs_names)
    a.obsm["sparse"] = sp.csr_matrix(counts(N, 7))
    a.obsm["zero columns"] = np.zeros((N, 0))
    a.varm["PCs"] = r.normal(size=(M, 5))
    a.obsp["distances"] = sp.csr_matrix(r.random((N, N)) * (r.random((N, N)) < 0.1))
    a.obsp["dense"] = r.random((N, N))
    a.varp["v"] = sp.csc_matrix(r.random((M, M)))
    names = np.rec.fromarrays(
        [np.array(["MS4A1", "CD79A", "β"], object), np.array(["x", "y", "z"], object)], names=["0", "B cells"]
    )
    a.uns = {
        "rank_genes_groups": {
            "names": names,
            "scores": np.rec.fromarrays([np.arange(3, dtype="f4"), np.ones(3, "f4")], names=["0", "B cells"]),
            "mixed": np.rec.fromarrays([np.arange(3), np.ones(3, bool), np.arange(3.0)], names=["i", "b", "d"]),
            "params": {"groupby": "cat", "use_raw": True, "reference": "rest", "layer": None},
        },
        "none": None,
        "empty": {},
        "nested": {"a": {"b": {"c": {"d": 1}}}},
        "int": 3,
        "float": 0.1,
        "nan": float("nan"),
        "float32": np.float32(0.1),
        "uint8": np.uint8(7),
        "bool": True,
        "text": "häß",
        "empty text": "",
        "colors": np.array(["#ff0000", "#00ff00"], object),
        "texts 2d": np.array([["a", "b"], ["c", "é"]], object),
        "empty array": np.zeros((0, 3)),
        "ints": np.arange(6).reshape(2, 3),
        "bools": np.array([True, False]),
        "image": np.arange(24, dtype=np.uint8).reshape(2, 4, 3),
        "complex": np.array([1j, 2]),
        "sparse": sp.csr_matrix(counts(4, 5)),
        "frame": pd.DataFrame({"a": [1, 2], "b": ["x", "y"]}, index=["r", "s"]),
        "frame int index": pd.DataFrame({"a": [1, 2]}, index=[10, 20]),
        "frame float index": pd.DataFrame({"a": [1, 2]}, index=[0.5, np.nan]),
        "cat": pd.Categorical(["a", "b", "a"]),
        "nullable": pd.array([1, None], dtype="Int64"),
        "ünïcode key": {"größe": 1},
    }
    a.raw = a.copy()
    return a


@pytest.mark.parametrize("compression", [None, "gzip", "lzf"])
def test_everything(tmp_path: Path, compression: str | None) -> None:
    got = round_trip(everything(), tmp_path, compression=compression)
    assert got.obs["cat ordered"].cat.ordered
    copy(tmp_path / "b.h5ad", tmp_path / "c.h5ad")
    copy(tmp_path / "b.h5ad", tmp_path / "d.h5ad")
    assert (tmp_path / "c.h5ad").read_bytes() == (tmp_path / "d.h5ad").read_bytes()


@pytest.mark.parametrize("libver", ["v108", "v110"])
def test_newer_hdf5_layouts(tmp_path: Path, libver: str) -> None:
    """Groups, chunk indices and attributes in the forms of later HDF5 versions."""
    a = everything()
    a.uns["wide"] = {f"key {i}": i for i in range(40)}
    with h5py.File(tmp_path / "a.h5ad", "w", libver=(libver, libver)) as f:
        ad.io.write_elem(f, "/", a, dataset_kwargs={"compression": "gzip"})
        for i in range(20):
            f["obs"].attrs[f"note {i}"] = "text" * i
    copy(tmp_path / "a.h5ad", tmp_path / "b.h5ad")
    check_same_adata(ad.read_h5ad(tmp_path / "a.h5ad"), ad.read_h5ad(tmp_path / "b.h5ad"))


@pytest.mark.parametrize("n_threads", [1, 3])
def test_bytes_do_not_depend_on_threads(tmp_path: Path, n_threads: int) -> None:
    everything().write_h5ad(tmp_path / "a.h5ad", compression="gzip")
    copy(tmp_path / "a.h5ad", tmp_path / "b.h5ad")
    context = _core.Context("cpu", n_threads, 0, 0, None, None)
    _core.io.copy_h5ad(context, str(tmp_path / "a.h5ad"), str(tmp_path / "c.h5ad"))
    assert (tmp_path / "b.h5ad").read_bytes() == (tmp_path / "c.h5ad").read_bytes()


@pytest.mark.parametrize("n", [0, 1])
@pytest.mark.parametrize("m", [0, 1])
@pytest.mark.parametrize("make", [np.asarray, sp.csr_matrix, sp.csc_matrix])
def test_empty(tmp_path: Path, n: int, m: int, make: Any) -> None:
    a = ad.AnnData(make(counts(n, m)))
    a.obs["x"] = np.zeros(n)
    a.obs["k"] = pd.Categorical(["a"] * n, categories=["a", "b"])
    a.obs["s"] = np.array(["t"] * n, dtype=object)
    a.obsm["e"] = np.zeros((n, 3))
    round_trip(a, tmp_path)


def test_no_matrix_and_nothing_at_all(tmp_path: Path) -> None:
    round_trip(ad.AnnData(obs=pd.DataFrame(index=["a", "b"]), var=pd.DataFrame(index=["g"])), tmp_path)
    round_trip(ad.AnnData(), tmp_path)


@pytest.mark.parametrize("layout", ["csr", "csc", "dense"])
@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "uint8", "bool", "float16"])
def test_matrix_types(tmp_path: Path, layout: str, dtype: str) -> None:
    if dtype == "float16" and layout != "dense":
        pytest.skip("scipy has no sparse float16")
    x = counts(dtype=dtype)
    a = ad.AnnData({"csr": sp.csr_matrix, "csc": sp.csc_matrix, "dense": np.asarray}[layout](x))
    round_trip(a, tmp_path, compression="gzip")
    data, shape, stored_layout, stored_dtype = _core.io.read_h5ad_matrix(
        make_context(op="test"), str(tmp_path / "a.h5ad")
    )
    assert (stored_layout, stored_dtype, shape) == (layout, dtype, (N, M))
    got = data if layout == "dense" else sp.csr_matrix((data[2], data[1], data[0]), shape).toarray()
    np.testing.assert_array_equal(got, x)


@pytest.mark.parametrize("layout", [np.asarray, sp.csr_matrix, sp.csc_matrix])
@pytest.mark.parametrize("dtype", ["int64", "uint64"])
@pytest.mark.filterwarnings("ignore")
def test_integers_that_no_double_holds(tmp_path: Path, dtype: str, layout: Any) -> None:
    """They are exact or an error, never rounded."""
    a = ad.AnnData(layout(np.array([[2**53 + 1, 0, 2**62 + 1], [3, 1, 2**24 + 1]], dtype)))
    a.layers["twice"] = a.X.copy()
    a.obsm["wide"] = np.array([[2**53 + 1], [1]], dtype)
    a.obsp["wide"] = layout(np.array([[2**53 + 1, 0], [1, 0]], dtype))
    a.raw = a.copy()
    a.write_h5ad(tmp_path / "a.h5ad")
    a.write_zarr(tmp_path / "a.zarr")
    some = {"obs_mask": np.array([True, False]), "var_mask": np.array([0, 2])}
    for read, name in ((scw.read_h5ad, "a.h5ad"), (scw.read_zarr, "a.zarr")):
        check_same_adata(a, read(tmp_path / name))
        got, want = read(tmp_path / name, **some), a[[True, False], [0, 2]].copy()
        for x, y in ((got.X, want.X), (got.layers["twice"], want.layers["twice"]), (got.raw.X, a.raw.X[:1])):
            assert type(x) is type(y) and x.dtype == y.dtype == dtype
            np.testing.assert_array_equal(x.toarray() if sp.issparse(x) else x, y.toarray() if sp.issparse(y) else y)
        with pytest.raises(TypeError, match=r"above 2\^53"):
            read(tmp_path / name, check_counts=True)
    with pytest.raises(TypeError, match=r"above 2\^53"):
        copy(tmp_path / "a.h5ad", tmp_path / "b.h5ad")
    b = ad.AnnData(np.ones((2, 3), "f4"), layers=a.layers, obsp=a.obsp)  # elsewhere they stay as they are
    b.write_h5ad(tmp_path / "a.h5ad")
    copy(tmp_path / "a.h5ad", tmp_path / "b.h5ad")
    check_same_adata(b, ad.read_h5ad(tmp_path / "b.h5ad"))


@pytest.mark.parametrize("layout", [np.asarray, sp.csr_matrix, sp.csc_matrix])
@pytest.mark.filterwarnings("ignore")
def test_complex_numbers(tmp_path: Path, layout: Any) -> None:
    """They keep nothing else from being read, and what cannot be written says so by its name."""
    z = layout(np.array([[1 + 2j, 0, 0], [0, 0, 1j]]))
    a = ad.AnnData(sp.csr_matrix(np.eye(2, 3, dtype="f4")), layers={"n": np.ones((2, 3), "f4"), "z": z})
    a.write_h5ad(tmp_path / "a.h5ad")
    a.write_zarr(tmp_path / "a.zarr")
    for read, name in ((scw.read_h5ad, "a.h5ad"), (scw.read_zarr, "a.zarr")):
        check_same_adata(a, read(tmp_path / name))
        some = read(tmp_path / name, obs_mask=np.array([False, True]), var_mask=np.array([1, 2]))
        check_same_adata(a[[False, True], [1, 2]].copy(), some)
        b = read(tmp_path / name, backed="r")
        assert (b.X.to_memory() != a.X).nnz == 0 and b.layers["z"].dtype == complex
    copy(tmp_path / "a.h5ad", tmp_path / "b.h5ad")
    check_same_adata(a, ad.read_h5ad(tmp_path / "b.h5ad"))
    a.X, a.layers = z, {}
    a.write_h5ad(tmp_path / "a.h5ad")
    check_same_adata(a, scw.read_h5ad(tmp_path / "a.h5ad"))
    for write in (scw.write_h5ad, scw.write_zarr):
        with pytest.raises(TypeError, match=r"^write: X is complex128"):
            write(a, tmp_path / "never")
    assert not (tmp_path / "never").exists()


def test_wide_indices_and_odd_chunks(tmp_path: Path) -> None:
    a = ad.AnnData(sp.csr_matrix(counts(400, 90)))
    a.obsm["tiles"] = np.random.default_rng(0).normal(size=(400, 90))
    a.write_h5ad(tmp_path / "a.h5ad")
    with h5py.File(tmp_path / "a.h5ad", "a") as f:
        for name in ("indices", "indptr"):
            values = f["X"][name][:]
            del f["X"][name]
            f["X"].create_dataset(
                name,
                data=values.astype(np.int64),
                compression="gzip",
                shuffle=True,
                chunks=(37,),
                fletcher32=name == "indptr",
            )
        values = f["X/data"][:]
        del f["X/data"]
        f["X"].create_dataset("data", data=values.astype(">f4"), chunks=(101,))
        values, attrs = f["obsm/tiles"][:], dict(f["obsm/tiles"].attrs)
        del f["obsm/tiles"]
        f["obsm"].create_dataset("tiles", data=values, chunks=(33, 17), compression="lzf", shuffle=True).attrs.update(
            attrs
        )
    copy(tmp_path / "a.h5ad", tmp_path / "b.h5ad")
    b = ad.read_h5ad(tmp_path / "b.h5ad")
    np.testing.assert_array_equal(b.X.toarray(), a.X.toarray())
    np.testing.assert_array_equal(b.obsm["tiles"], a.obsm["tiles"])


@pytest.mark.parametrize("kwargs", [{}, {"chunks": (7,)}, {"chunks": (7,), "compression": "gzip"}])
def test_user_block(tmp_path: Path, kwargs: dict[str, Any]) -> None:
    """Addresses count from behind the user block, in every storage."""
    x = sp.csr_matrix(counts())
    with h5py.File(tmp_path / "a.h5ad", "w", userblock_size=1024) as f:
        ad.io.write_elem(f, "X", x, dataset_kwargs=kwargs)
        for name, size in (("obs", N), ("var", M)):
            ad.io.write_elem(f, name, pd.DataFrame(index=[f"{name}{i}" for i in range(size)]), dataset_kwargs=kwargs)
    copy(tmp_path / "a.h5ad", tmp_path / "b.h5ad")
    got = ad.read_h5ad(tmp_path / "b.h5ad")
    np.testing.assert_array_equal(got.X.toarray(), x.toarray())
    assert list(got.obs_names) == [f"obs{i}" for i in range(N)]


def test_nullable_strings(tmp_path: Path) -> None:
    if not hasattr(ad.settings, "allow_write_nullable_strings"):
        pytest.skip("this anndata has no nullable strings")
    a = ad.AnnData(counts())
    a.obs["s"] = pd.array([None if i % 5 == 0 else f"x{i}" for i in range(N)], dtype="string")
    with ad.settings.override(allow_write_nullable_strings=True):
        a.write_h5ad(tmp_path / "a.h5ad", convert_strings_to_categoricals=False)
    copy(tmp_path / "a.h5ad", tmp_path / "b.h5ad")
    check_same_adata(ad.read_h5ad(tmp_path / "a.h5ad"), ad.read_h5ad(tmp_path / "b.h5ad"))


def test_unknown_things_are_carried(tmp_path: Path) -> None:
    """What scwarp has never heard of stays as it is."""
    everything().write_h5ad(tmp_path / "a.h5ad")
    with h5py.File(tmp_path / "a.h5ad", "a") as f:
        f.attrs["my attribute"] = "kept"
        f["mystery/inner"] = np.arange(5)
        f["mystery"].attrs["encoding-type"] = "from the future"
        f["uns/future"] = np.arange(3)
        f["uns/future"].attrs["encoding-type"] = "hologram"
        g = f["obsm"].create_group("awkward")
        g.attrs["encoding-type"] = "awkward-array"
        g["node0"] = np.arange(N)
        c = f["obs"].create_group("interval")
        c.attrs["encoding-type"] = "interval-array"
        c["left"] = np.arange(N)
        f["obs"].attrs["column-order"] = [*f["obs"].attrs["column-order"], "interval"]
        f["uns/vlen"] = np.array([np.arange(2), np.arange(3)], dtype=h5py.vlen_dtype(np.int32))
        f["uns"].attrs["extra"] = 7
        f["uns/rank_genes_groups"].attrs["extra"] = 8
        for path in ("X", "obs", "obs/nan", "obs/cat", "obsm/X_pca", "obsm/three", "raw/var", "layers"):
            f[path].attrs["note"] = f"about {path}"
    copy(tmp_path / "a.h5ad", tmp_path / "b.h5ad")
    with h5py.File(tmp_path / "a.h5ad") as f, h5py.File(tmp_path / "b.h5ad") as g:
        assert g.attrs["my attribute"] == "kept"
        assert g["uns"].attrs["extra"] == 7 and g["uns/rank_genes_groups"].attrs["extra"] == 8
        for path in ("X", "obs", "obs/nan", "obs/cat", "obsm/X_pca", "obsm/three", "raw/var", "layers"):
            assert dict(f[path].attrs).keys() == dict(g[path].attrs).keys()
            assert g[path].attrs["note"] == f"about {path}"
        for path in ("mystery/inner", "uns/future", "obsm/awkward/node0", "obs/interval/left"):
            np.testing.assert_array_equal(f[path][()], g[path][()])
        for path in ("mystery", "uns/future", "obsm/awkward", "obs/interval"):
            assert dict(f[path].attrs) == dict(g[path].attrs)
        np.testing.assert_array_equal(g["uns/vlen"][1], np.arange(3))

        def walk(name: str, x: Any) -> None:
            assert name in g, name

        f.visititems(walk)


def test_slash_in_column_name(tmp_path: Path) -> None:
    a = ad.AnnData(counts())
    a.obs["plain"] = np.arange(N)
    a.write_h5ad(tmp_path / "a.h5ad")
    with h5py.File(tmp_path / "a.h5ad", "a") as f:  # as anndata before 0.11 did it
        f["obs/a/b"] = np.arange(N)
        f["obs"].attrs["column-order"] = ["plain", "a/b"]
    copy(tmp_path / "a.h5ad", tmp_path / "b.h5ad")
    with h5py.File(tmp_path / "b.h5ad") as f:
        np.testing.assert_array_equal(f["obs/a/b"][:], np.arange(N))


@pytest.mark.filterwarnings("ignore")
def test_anndata_0_7(tmp_path: Path) -> None:
    """Categories beside the codes, no encodings below."""
    path = tmp_path / "a.h5ad"
    with h5py.File(path, "w") as f:
        x = sp.csr_matrix(counts())
        g = f.create_group("X")
        g.attrs.update({"encoding-type": "csr_matrix", "encoding-version": "0.1.0", "shape": x.shape})
        g["data"], g["indices"], g["indptr"] = x.data, x.indices, x.indptr
        for name, size in (("obs", N), ("var", M)):
            d = f.create_group(name)
            d.attrs.update({"encoding-type": "dataframe", "encoding-version": "0.1.0", "_index": "index"})
            d["index"] = np.array([f"{name}{i}" for i in range(size)], dtype=h5py.string_dtype())
            d["k"] = (np.arange(size) % 2).astype(np.int8)
            d["x"] = np.arange(size) * 0.5
            names = d.create_dataset("__categories/k", data=np.array(["a", "b"], dtype=h5py.string_dtype()))
            names.attrs["ordered"] = True
            d["k"].attrs["categories"] = names.ref
            d.attrs["column-order"] = np.array(["k", "x"], dtype=h5py.string_dtype())
        f["obsm/X_pca"] = np.ones((N, 2))
        f["uns/flag"] = True
        f["uns/text"] = "t"
        f["layers/d"] = counts()
    copy(path, tmp_path / "b.h5ad")
    check_same_adata(ad.read_h5ad(path), ad.read_h5ad(tmp_path / "b.h5ad"))
    assert ad.read_h5ad(tmp_path / "b.h5ad").obs["k"].cat.ordered


@pytest.mark.filterwarnings("ignore")
def test_anndata_0_6(tmp_path: Path) -> None:
    """Data frames as arrays of records, h5sparse groups, categories in uns, raw beside X."""
    path = tmp_path / "a.h5ad"
    x = sp.csr_matrix(counts())
    with h5py.File(path, "w") as f:
        for name in ("X", "raw.X"):
            g = f.create_group(name)
            g.attrs["h5sparse_format"], g.attrs["h5sparse_shape"] = "csr", x.shape
            g["data"], g["indices"], g["indptr"] = x.data, x.indices, x.indptr
        for name, size in (("obs", N), ("var", M), ("raw.var", M)):
            r = np.zeros(size, dtype=[("index", "S8"), ("k", "i1"), ("x", "f4")])
            r["index"] = [f"c{i}".encode() for i in range(size)]
            r["k"], r["x"] = np.arange(size) % 2, np.arange(size)
            f[name] = r
        m = np.zeros(N, dtype=[("X_pca", "f4", (3,)), ("X_tsne", "f8", (2,))])
        m["X_pca"] = np.arange(N * 3).reshape(N, 3)
        f["obsm"] = m
        f["uns/k_categories"] = np.array([b"a", b"b"])
        f["uns/n"] = np.array([3])
    copy(path, tmp_path / "b.h5ad")
    b = ad.read_h5ad(tmp_path / "b.h5ad")
    np.testing.assert_array_equal(b.X.toarray(), x.toarray())
    np.testing.assert_array_equal(b.raw.X.toarray(), x.toarray())
    assert list(b.obs["k"].cat.categories) == ["a", "b"] and list(b.obs_names[:2]) == ["c0", "c1"]
    np.testing.assert_array_equal(b.obsm["X_pca"], m["X_pca"])
    assert b.obsm["X_pca"].dtype == np.float32 and b.obs["x"].dtype == np.float32
    assert "k_categories" not in b.uns and list(b.uns["n"]) == [3]


def damaged(tmp_path: Path, change: Any) -> Path:
    a = ad.AnnData(sp.csr_matrix(counts()))
    a.obs["k"] = pd.Categorical(np.arange(N) % 2)
    a.obsm["X_pca"] = np.ones((N, 2))
    a.write_h5ad(tmp_path / "bad.h5ad")
    with h5py.File(tmp_path / "bad.h5ad", "a") as f:
        change(f)
    return tmp_path / "bad.h5ad"


def put(f: h5py.File, path: str, values: Any, **kwargs: Any) -> None:
    attrs = dict(f[path].attrs)
    del f[path]
    f.create_dataset(path, data=values, **kwargs).attrs.update(attrs)


def virtual(f: h5py.File) -> None:
    layout = h5py.VirtualLayout((N, 2), "f8")
    layout[:] = h5py.VirtualSource("/etc/passwd", "x", (N, 2))
    del f["obsm/X_pca"]
    f["obsm"].create_virtual_dataset("X_pca", layout)


def external(f: h5py.File) -> None:
    del f["obsm/X_pca"]
    f["obsm"].create_dataset("X_pca", (N, 2), "u1", external=[("/etc/passwd", 0, N * 2)])


def huge(f: h5py.File) -> None:
    del f["obsm/X_pca"]
    f["obsm"].create_dataset("X_pca", (N, 2**45), "f8", chunks=(1, 1024))


BAD = {
    "short data": (lambda f: put(f, "X/data", f["X/data"][:-1]), ValueError, "/X/data.*expected"),
    "index out of range": (lambda f: f["X/indices"].__setitem__(5, M), scw.DataError, "/X.*position 5.*out of range"),
    "negative index": (lambda f: f["X/indices"].__setitem__(0, -1), scw.DataError, "index -1"),
    "falling indptr": (lambda f: f["X/indptr"].__setitem__(4, 10**6), ValueError, "/X/indptr.*falls.*position 5"),
    "indptr start": (lambda f: f["X/indptr"].__setitem__(0, 1), ValueError, "starts at 1"),
    "float indices": (lambda f: put(f, "X/indices", f["X/indices"][:].astype("f4")), ValueError, "float32.*integers"),
    "text data": (lambda f: put(f, "X/data", np.array([b"x"] * len(f["X/data"]))), ValueError, "/X/data"),
    "wide index": (lambda f: put(f, "X/indices", f["X/indices"][:].astype("i8") + 2**40), ValueError, "out of range"),
    "shape": (lambda f: f["X"].attrs.__setitem__("shape", [N, M + 1]), ValueError, "/X.*expected 37 x 23"),
    "no shape": (lambda f: f["X"].attrs.__delitem__("shape"), ValueError, "/X"),
    "duplicate": (lambda f: put(f, "X/indices", np.zeros_like(f["X/indices"][:])), scw.DataError, "duplicate"),
    "rows of obsm": (lambda f: put(f, "obsm/X_pca", np.ones((N + 1, 2))), ValueError, "/obsm/X_pca.*expected 37"),
    "column length": (lambda f: put(f, "obs/k/codes", np.zeros(3, "i1")), ValueError, "/obs/k/codes"),
    "code": (lambda f: f["obs/k/codes"].__setitem__(2, 9), scw.DataError, "code 9 at position 2"),
    "missing column": (lambda f: f.__delitem__("obs/k"), ValueError, "/obs.*'k'"),
    "missing obs": (lambda f: f.__delitem__("obs"), ValueError, "no 'obs'"),
    "X is text": (lambda f: (f.__delitem__("X"), f.__setitem__("X", "text")), ValueError, "/X"),
    "external link": (
        lambda f: f["obsm"].__setitem__("e", h5py.ExternalLink("/etc/passwd", "/x")),
        ValueError,
        "/obsm/e.*external link",
    ),
    "soft link": (lambda f: f["uns"].__setitem__("s", h5py.SoftLink("/uns")), ValueError, "/uns/s.*soft link"),
    "virtual": (virtual, ValueError, "/obsm/X_pca.*virtual"),
    "external": (external, ValueError, "/obsm/X_pca.*another file"),
    "huge": (huge, ValueError, "/obsm/X_pca.*declares"),
    "other format": (lambda f: f.attrs.__setitem__("encoding-type", "MuData"), ValueError, "MuData"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_files(tmp_path: Path, case: str) -> None:
    change, error, message = BAD[case]
    path = damaged(tmp_path, change)
    with pytest.raises(error, match=message) as caught:
        copy(path, tmp_path / "out.h5ad")
    assert "bad.h5ad" in str(caught.value)
    assert not (tmp_path / "out.h5ad").exists()


def test_group_cycle_ends(tmp_path: Path) -> None:
    path = damaged(tmp_path, lambda f: f["uns"].__setitem__("again", f["uns"]))
    copy(path, tmp_path / "out.h5ad")


def test_unsorted_rows_are_sorted(tmp_path: Path) -> None:
    x = sp.csr_matrix(counts())
    indices, data = x.indices.copy(), x.data.copy()
    first, last = x.indptr[1], x.indptr[2]
    indices[first:last], data[first:last] = indices[first:last][::-1], data[first:last][::-1]
    ad.AnnData(sp.csr_matrix((data, indices, x.indptr), x.shape)).write_h5ad(tmp_path / "a.h5ad")
    copy(tmp_path / "a.h5ad", tmp_path / "b.h5ad")
    b = ad.read_h5ad(tmp_path / "b.h5ad").X
    np.testing.assert_array_equal(b.indices, x.indices)
    np.testing.assert_array_equal(b.data, x.data)


@pytest.mark.parametrize("value", [np.nan, -1.0, np.inf])
@pytest.mark.parametrize("make", [np.asarray, sp.csr_matrix])
def test_check_counts(tmp_path: Path, value: float, make: Any) -> None:
    x = counts()
    x[7, 5] = value
    ad.AnnData(make(x)).write_h5ad(tmp_path / "a.h5ad")
    copy(tmp_path / "a.h5ad", tmp_path / "b.h5ad")
    with pytest.raises(scw.DataError, match="cell 7, gene 5"):
        copy(tmp_path / "a.h5ad", tmp_path / "b.h5ad", check_counts=True)


def test_a_killed_run_leaves_the_old_file(tmp_path: Path) -> None:
    r = np.random.default_rng(0)
    big = ad.AnnData(sp.random(20000, 500, 0.2, "csr", np.float32, random_state=0, data_rvs=r.random))
    big.write_h5ad(tmp_path / "big.h5ad")
    target = tmp_path / "out.h5ad"
    target.write_bytes(b"old")
    script = textwrap.dedent(f"""
        from scwarp import _core
        context = _core.Context("cpu", 1, 0, 0, None, None)
        print("go", flush=True)
        while True:
            _core.io.copy_h5ad(context, {str(tmp_path / "big.h5ad")!r}, {str(target)!r}, 9)
    """)
    child = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    assert child.stdout is not None and child.stdout.readline() == b"go\n"
    time.sleep(0.3)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    if target.read_bytes() != b"old":  # a fast machine got through
        assert ad.read_h5ad(target).shape == big.shape


@pytest.mark.parametrize("compression", [None, "gzip", "lzf"])
def test_read_h5ad(tmp_path: Path, compression: str | None) -> None:
    everything().write_h5ad(tmp_path / "a.h5ad", compression=compression)
    a = scw.read_h5ad(tmp_path / "a.h5ad")
    check_same_adata(ad.read_h5ad(tmp_path / "a.h5ad"), a)
    assert a.X.indptr.dtype == a.X.indices.dtype == np.int32


@pytest.mark.parametrize("compression", [None, "gzip"])
def test_long_arrays_of_texts(tmp_path: Path, compression: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """scwarp reads the texts that h5py takes long for; anndata makes of them what it makes of h5py's."""
    found: list[str] = []

    def texts(ctx: Any, path: str, name: str) -> list[str]:
        found.append(name)
        return _core.io.read_h5ad_texts(ctx, path, name)

    monkeypatch.setattr(_anndata, "_MANY_TEXTS", 2)
    monkeypatch.setattr(_h5ad, "H5AD", dataclasses.replace(_anndata.H5AD, texts=texts))
    a = everything()
    a.obs_names = [f"Zelle {i} \u00e4\u4e2d" * (i % 4) + str(i) for i in range(N)]
    a.obs.index.name = "cell name"
    for name in [k for k, v in a.layers.items() if sp.issparse(v) and v.format == "csc"]:
        del a.layers[name]  # which backed does not read
    a.uns["texts"] = np.array([["a", "", "\u00e4"], ["b" * 5000, "c", "d"]], object)
    a.write_h5ad(tmp_path / "a.h5ad", compression=compression)
    with h5py.File(tmp_path / "a.h5ad", "r+") as f:  # what h5py decodes otherwise
        f["uns"].create_dataset("fixed", data=np.array([b"ab", b"c"], "S2"))
        f["uns"].create_dataset("ascii", data=np.array(["ab", "c"], object), dtype=h5py.string_dtype("ascii"))
        for name in ("fixed", "ascii"):
            f["uns"][name].attrs.update({"encoding-type": "string-array", "encoding-version": "0.2.0"})
    expected = ad.read_h5ad(tmp_path / "a.h5ad")
    got = scw.read_h5ad(tmp_path / "a.h5ad")
    check_same_adata(expected, got)
    assert {"obs/cell name", "var/_index", "uns/texts"} <= set(found)
    assert not {"uns/fixed", "uns/ascii"} & set(found)
    for a, b in ((expected.obs, got.obs), (expected.var, got.var)):
        pd.testing.assert_frame_equal(a, b)
        assert a.index.dtype == b.index.dtype and {type(v) for v in b.index} == {str}
    for mode in ({"backed": "r"}, {"obs_mask": np.arange(N) % 2 == 0}):
        some = scw.read_h5ad(tmp_path / "a.h5ad", **mode)
        assert list(some.var_names) == list(expected.var_names)


def test_names_that_anndata_minds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_anndata, "_MANY_TEXTS", 2)
    ad.AnnData(sp.csr_matrix(counts())).write_h5ad(tmp_path / "a.h5ad")
    with h5py.File(tmp_path / "a.h5ad", "r+") as f:
        f["obs/_index"][3] = f["obs/_index"][2]
    with pytest.warns(UserWarning, match="not unique"):
        scw.read_h5ad(tmp_path / "a.h5ad")
    with h5py.File(tmp_path / "a.h5ad", "r+") as f:
        f["obs/_index"][3] = b"\xff"
    for read in (ad.read_h5ad, scw.read_h5ad):
        with pytest.raises(UnicodeDecodeError):
            read(tmp_path / "a.h5ad")


@pytest.mark.parametrize("slot", ["X", "layers/counts"])
def test_matrices_that_do_not_fit_the_names(tmp_path: Path, slot: str) -> None:
    a = ad.AnnData(sp.csr_matrix(counts()), layers={"counts": sp.csr_matrix(counts())})
    a.write_h5ad(tmp_path / "a.h5ad")
    with h5py.File(tmp_path / "a.h5ad", "r+") as f:
        f[slot].attrs["shape"] = [N, M + 1]
    for read in (ad.read_h5ad, scw.read_h5ad):
        with pytest.raises(ValueError):
            read(tmp_path / "a.h5ad")


@pytest.mark.parametrize("make", [np.asarray, sp.csr_matrix, sp.csc_matrix])
def test_read_h5ad_checks_counts(tmp_path: Path, make: Any) -> None:
    x = counts()
    x[2, 3] = np.nan
    ad.AnnData(make(x)).write_h5ad(tmp_path / "a.h5ad")
    scw.read_h5ad(tmp_path / "a.h5ad")
    with pytest.raises(scw.DataError, match="cell 2, gene 3"):
        scw.read_h5ad(tmp_path / "a.h5ad", check_counts=True)


@pytest.mark.parametrize("level", [0, 1, 6])
def test_write_h5ad(tmp_path: Path, level: int) -> None:
    a = everything()
    a.obs["text again"] = a.obs["text"].iloc[::-1].to_numpy()
    a.write_h5ad(tmp_path / "a.h5ad", convert_strings_to_categoricals=True)
    a = everything()
    a.obs["text again"] = a.obs["text"].iloc[::-1].to_numpy()
    kept = a.X
    scw.write_h5ad(a, tmp_path / "b.h5ad", compression_level=level)
    assert a.X is kept and a.obs["text"].dtype == object
    # anndata before 0.12 reads no file with None values: ours have none
    expected, got = ad.read_h5ad(tmp_path / "a.h5ad"), ad.read_h5ad(tmp_path / "b.h5ad")
    assert expected.uns.pop("none", None) is None and "none" not in got.uns
    expected.uns["rank_genes_groups"]["params"].pop("layer", None)
    check_same_adata(expected, got)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.h5ad", "b.h5ad"]


@pytest.mark.parametrize("compression", ["gzip", "zstd", None])
def test_write_same_bytes(tmp_path: Path, compression: Any) -> None:
    """On every run and for any number of threads; chunks and filters as asked for."""
    r = np.random.default_rng(0)
    a = ad.AnnData(sp.random(3000, 300, 0.2, "csr", np.float32, random_state=r))
    a.layers["dense"] = np.asfortranarray(r.integers(0, 9, (3000, 300)))
    a.obsm["half"] = r.normal(size=(3000, 40)).astype(np.float16)[::-1, ::2]
    before = scw.settings.n_threads
    try:
        for n_threads in (1, 2, 2, 3):
            scw.settings.n_threads = n_threads
            scw.write_h5ad(a, tmp_path / f"{n_threads}.h5ad", compression=compression, chunk_bytes=1 << 16)
    finally:
        scw.settings.n_threads = before
    one = (tmp_path / "1.h5ad").read_bytes()
    assert one == (tmp_path / "2.h5ad").read_bytes() == (tmp_path / "3.h5ad").read_bytes()
    with h5py.File(tmp_path / "1.h5ad") as f:
        d = f["X/data"]
        if compression is not None:
            assert d.chunks == (1 << 14,) and d.shuffle and f["layers/dense"].chunks == (27, 300)
        if compression == "zstd":
            assert "32015" in d._filters
            numcodecs = pytest.importorskip("numcodecs")
            _, raw = d.id.read_direct_chunk((0,))
            bytes_ = np.frombuffer(numcodecs.Zstd().decode(raw), np.uint8).reshape(4, -1).T
            np.testing.assert_array_equal(np.ascontiguousarray(bytes_).view(np.float32).ravel(), a.X.data[: 1 << 14])
            return
    b = ad.read_h5ad(tmp_path / "1.h5ad")
    check_same_adata(a, b)


@pytest.mark.parametrize("options", [{"compression": "lzf"}, {"compression_level": 13}, {"chunk_bytes": 10}])
def test_write_options_are_checked(tmp_path: Path, options: Any) -> None:
    with pytest.raises(ValueError, match=r"write_h5ad: .*(compression|chunk_bytes)"):
        scw.write_h5ad(ad.AnnData(counts()), tmp_path / "a.h5ad", **options)
    assert not list(tmp_path.iterdir())


def test_write_refuses_broken_indices(tmp_path: Path) -> None:
    x = sp.csr_matrix(counts())
    x.indices[3] = M
    with pytest.raises(scw.DataError, match=r"'X'.*out of range"):
        scw.write_h5ad(ad.AnnData(x), tmp_path / "a.h5ad")
    assert not list(tmp_path.iterdir())


def test_duplicates_are_found_without_a_copy(tmp_path: Path) -> None:
    import tracemalloc

    r = np.random.default_rng(0)
    indices = np.concatenate([r.permutation(2000)[:100] for _ in range(20_000)]).astype(np.int32)
    x = sp.csr_matrix((np.ones(indices.size, "f4"), indices, np.arange(20_001, dtype=np.int32) * 100), (20_000, 2000))
    tracemalloc.start()
    _refuse_duplicates("X", x)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < x.data.nbytes / 2
    x.indices[100 * 17_345 + 3] = x.indices[100 * 17_345 + 50]
    for y, kind in ((x, "row"), (sp.csc_matrix((x.data, x.indices, x.indptr), (2000, 20_000)), "column")):
        y.has_canonical_format = False
        with pytest.raises(scw.DataError, match=f"duplicate index {x.indices[100 * 17_345 + 3]} in {kind} 17345 "):
            _refuse_duplicates("X", y)
    wide = sp.csr_matrix((np.ones(400_000, "f4"), np.arange(400_000)[::-1], [0, 0, 400_000, 400_000]), (3, 400_000))
    _refuse_duplicates("X", wide)


def test_write_view_and_missing_folder(tmp_path: Path) -> None:
    view = everything()[3:9, ::2]
    scw.write_h5ad(view, tmp_path / "v.h5ad")
    np.testing.assert_array_equal(ad.read_h5ad(tmp_path / "v.h5ad").X.toarray(), view.X.toarray())
    with pytest.raises(OSError):
        scw.write_h5ad(view, tmp_path / "nowhere" / "v.h5ad")
    with pytest.raises(OSError):
        scw.read_h5ad(tmp_path / "nothing.h5ad")
