"""h5ad files of every compression: equal to anndata's reader; what is damaged or unknown is refused by name."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import anndata as ad
import h5py
import numpy as np
import pytest
import scipy.sparse as sp

import scwarp as scw

hdf5plugin = pytest.importorskip("hdf5plugin")

CASES: dict[str, dict[str, Any]] = {
    "none": {},
    "gzip": {"compression": "gzip", "compression_opts": 5},
    "gzip shuffle": {"compression": "gzip", "shuffle": True},
    "lzf": {"compression": "lzf"},
    "zstd": dict(hdf5plugin.Zstd(clevel=4)),
    "zstd shuffle": {**hdf5plugin.Zstd(), "shuffle": True},
    "lz4": dict(hdf5plugin.LZ4()),
    "lz4 small blocks": dict(hdf5plugin.LZ4(nbytes=1000)),
    **{
        f"blosc {name} {shuffle}": dict(hdf5plugin.Blosc(cname=name, clevel=5, shuffle=shuffle))
        for name in ("blosclz", "lz4", "lz4hc", "zlib", "zstd")
        for shuffle in (0, 1, 2)
    },
}


def example(n: int = 700, m: int = 300) -> ad.AnnData:
    x = sp.random(n, m, 0.1, "csr", dtype=np.float32, random_state=0)
    x.data = np.ceil(x.data * 9)
    y = sp.random(n, m, 0.05, "csc", dtype=np.float64, random_state=1)
    a = ad.AnnData(x, layers={"csc": y, "dense": np.arange(n * m, dtype=np.float32).reshape(n, m)})
    a.layers["counts"] = x.astype(np.int64)
    a.obs["n"] = np.arange(n)
    return a


def write(path: Path, a: ad.AnnData, how: dict[str, Any]) -> None:
    """As anndata does, and then the arrays of numbers once more with these filters (hdf5plugin dies of some texts)."""
    with h5py.File(path, "w") as f, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ad.io.write_elem(f, "/", a)
        arrays: list[str] = []
        f.visititems(
            lambda k, d: arrays.append(k) if isinstance(d, h5py.Dataset) and d.size and d.dtype != "O" else None
        )
        for name in arrays if how else []:
            values, attributes = f[name][()], dict(f[name].attrs)
            if np.ndim(values) == 0:
                continue
            del f[name]
            chunks = (max(1000, len(values) // 100),) if values.ndim == 1 else (64, 50)
            if len(values) < chunks[0]:
                chunks = values.shape
            f.create_dataset(name, data=values, chunks=chunks, **how).attrs.update(attributes)


def same(a: Any, b: Any) -> None:
    assert type(a) is type(b) and a.dtype == b.dtype
    if sp.issparse(a):
        assert a.format == b.format
        a, b = a.toarray(), b.toarray()
    np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("how", CASES)
def test_compression(tmp_path: Path, how: str) -> None:
    path = tmp_path / "a.h5ad"
    write(path, example(), CASES[how])
    if how != "none":
        with h5py.File(path) as f:
            plist = f["X/data"].id.get_create_plist()
            assert plist.get_nfilters() == 1 + ("shuffle" in how)
    ours, theirs = scw.read_h5ad(path), ad.read_h5ad(path)
    same(ours.X, theirs.X)
    for k in theirs.layers:
        same(ours.layers[k], theirs.layers[k])
    assert ours.obs.equals(theirs.obs)


@pytest.mark.parametrize("more", [{}, {"compression": "gzip"}, {"compression": "lzf", "shuffle": True}])
def test_fletcher32(tmp_path: Path, more: dict[str, Any]) -> None:
    path = tmp_path / "a.h5ad"
    a = example()
    write(path, a, {"fletcher32": True, **more})
    same(scw.read_h5ad(path).X, a.X)
    # One bit of the checksum: the library would refuse it as well.
    with h5py.File(path) as f:
        info = f["X/data"].id.get_chunk_info(3)
    content = bytearray(path.read_bytes())
    content[info.byte_offset + info.size - 1] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"object '/X/data': the chunk at \(3000, 0\) is damaged"):
        scw.read_h5ad(path)


def test_a_checksum_before_the_compression(tmp_path: Path) -> None:
    path = tmp_path / "a.h5ad"
    a = example()
    write(path, a, {})
    with h5py.File(path, "a") as f:
        values = f["X/data"][:]
        del f["X/data"]
        plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plist.set_chunk((1000,))
        plist.set_fletcher32()
        plist.set_shuffle()
        plist.set_deflate(4)
        d = h5py.h5d.create(f["X"].id, b"data", h5py.h5t.NATIVE_FLOAT, h5py.h5s.create_simple(values.shape), plist)
        d.write(h5py.h5s.ALL, h5py.h5s.ALL, values)
    same(scw.read_h5ad(path).X, a.X)


def test_much_in_little(tmp_path: Path) -> None:
    """All values are one: more than deflate could shrink, and right."""
    n = 20_000_000
    x = sp.csr_matrix(
        (np.ones(n, np.float32), np.tile(np.arange(1000, dtype=np.int32), n // 1000), np.arange(0, n + 1, 1000)),
        shape=(n // 1000, 1000),
    )
    path = tmp_path / "a.h5ad"
    write(path, ad.AnnData(x), dict(hdf5plugin.Zstd()))
    with h5py.File(path) as f:
        assert f["X/data"].id.get_storage_size() * 1040 < n * 4
    back = scw.read_h5ad(path).X
    assert back.nnz == n and (back.data == 1).all()


@pytest.mark.parametrize(
    "how", ["zstd", "lz4", "blosc lz4 1", "blosc zlib 2", "blosc zstd 1", "blosc blosclz 1", "lzf"]
)
def test_damaged_chunks_are_errors_or_other_numbers(tmp_path: Path, how: str) -> None:
    path = tmp_path / "a.h5ad"
    write(path, example(), CASES[how])
    good = path.read_bytes()
    with h5py.File(path) as f:
        info = f["X/data"].id.get_chunk_info(1)
    r = np.random.default_rng(0)
    refused = 0
    for turn in range(60):
        content = bytearray(good)
        # Headers first, then anywhere.
        at = turn if turn < 24 else int(r.integers(info.size))
        content[info.byte_offset + at] ^= int(r.integers(1, 256))
        path.write_bytes(content)
        try:
            scw.read_h5ad(path)
        except ValueError as e:
            assert "object '/X/data': the chunk at" in str(e) and "damaged" in str(e), e
            refused += 1
    assert refused > 5


def test_unknown_and_double_compression(tmp_path: Path) -> None:
    path = tmp_path / "a.h5ad"
    a = example()
    write(path, a, dict(hdf5plugin.BZip2()))
    with pytest.raises(NotImplementedError, match=r"a\.h5ad', object '/X/.*filter 307"):
        scw.read_h5ad(path)
    write(path, a, {**hdf5plugin.Zstd(), "fletcher32": True})
    with h5py.File(path, "a") as f:
        values = f["X/data"][:]
        del f["X/data"]
        plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plist.set_chunk((1000,))
        plist.set_deflate(4)
        plist.set_filter(32015, h5py.h5z.FLAG_OPTIONAL, (3,))
        d = h5py.h5d.create(f["X"].id, b"data", h5py.h5t.NATIVE_FLOAT, h5py.h5s.create_simple(values.shape), plist)
        d.write(h5py.h5s.ALL, h5py.h5s.ALL, values)
    with pytest.raises(NotImplementedError, match=r"object '/X/data': is compressed 2 times"):
        scw.read_h5ad(path)
