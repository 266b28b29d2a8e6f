"""Writes small valid files of every format, encoding and filter: what the fuzzers and the replay start from.

make_corpus.py FOLDER      FOLDER gets a folder per format. The same versions of h5py and anndata write the same bytes.
"""

from __future__ import annotations

import argparse
import gzip
import json
import struct
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import scipy.sparse as sp

N, M = 6, 4
TEXT = h5py.string_dtype()


def counts(n: int = N, m: int = M, dtype: Any = np.float32) -> np.ndarray:
    return (np.arange(n * m).reshape(n, m) * 7 % 5 % 3).astype(dtype)


def plain(x: Any = None) -> ad.AnnData:
    a = ad.AnnData(sp.csr_matrix(counts()) if x is None else x, shape=None)
    a.obs_names = [f"c{i}" for i in range(a.n_obs)]
    a.var_names = [f"g{i}" for i in range(a.n_vars)]
    return a


def frames() -> ad.AnnData:
    a = plain()
    n = np.arange(N)
    a.obs["i8"] = n.astype("i1")
    a.obs["u64"] = np.full(N, 2**64 - 3, np.uint64)
    a.obs["f16"] = n.astype("f2")
    a.obs["f64"] = n / 3
    a.obs["b"] = n % 2 == 0
    a.obs["complex"] = n + 1j
    a.obs["text"] = [f"é{i}" for i in n]
    a.obs["cat"] = pd.Categorical.from_codes([-1, 0, 1, 0, 1, 0], ["b", "ç"], ordered=True)
    a.obs["cat int"] = pd.Categorical(n % 2)
    a.obs["Int"] = pd.array([None, 1, 2, 3, 4, 5], dtype="Int64")
    a.obs["boolean"] = pd.array([None, True, False, True, False, True], dtype="boolean")
    return a


def slots() -> ad.AnnData:
    a = plain(counts(dtype=np.int64))
    a.layers["csc"] = sp.csc_matrix(counts(dtype=np.int32))
    a.obsm["X_pca"] = np.ones((N, 2), np.float32)
    a.obsm["three"] = np.ones((N, 2, 2))
    a.obsm["frame"] = pd.DataFrame({"x": np.arange(N)}, index=a.obs_names)
    a.varm["PCs"] = np.ones((M, 2))
    a.obsp["distances"] = sp.csr_matrix(np.eye(N))
    a.varp["v"] = np.eye(M)
    a.raw = plain()
    return a


def unstructured() -> ad.AnnData:
    a = plain()
    a.uns = {
        "names": np.rec.fromarrays([np.array(["MS4A1", "β"], object), np.array(["x", "y"], object)], names=["0", "B"]),
        "mixed": np.rec.fromarrays([np.arange(2), np.ones(2, bool), np.arange(2.0)], names=["i", "b", "d"]),
        "deep": {"a": {"b": {"n": 1, "f": 0.5, "t": "text", "flag": True}}},
        "texts": np.array([["a", "b"], ["c", "é"]], object),
        "ints": np.arange(6).reshape(2, 3),
        "bools": np.array([True, False]),
        "complex": np.array([1j, 2]),
        "sparse": sp.csr_matrix(np.eye(3)),
        "frame": pd.DataFrame({"a": [1, 2]}, index=["r", "s"]),
        "cat": pd.Categorical(["a", "b", "a"]),
        "empty": {},
    }
    return a


def minimal(f: h5py.File, **kwargs: Any) -> None:
    """The smallest file with a sparse matrix and two frames, by hand, so that it is small."""
    x = sp.csr_matrix(counts())
    g = f.create_group("X")
    g.attrs.update({"encoding-type": "csr_matrix", "encoding-version": "0.1.0", "shape": np.array(x.shape)})
    for name in ("data", "indices", "indptr"):
        g.create_dataset(name, data=getattr(x, name), **kwargs)
    for name, size in (("obs", N), ("var", M)):
        d = f.create_group(name)
        d.attrs.update({"encoding-type": "dataframe", "encoding-version": "0.2.0", "_index": "_index"})
        d.attrs["column-order"] = np.array([], dtype=TEXT)
        d.create_dataset("_index", data=np.array([f"{name}{i}" for i in range(size)], dtype=TEXT))


def fixed_names(f: h5py.File, **kwargs: Any) -> None:
    """No text of variable length at all."""
    minimal(f, **kwargs)
    for name, size in (("obs", N), ("var", M)):
        del f[name]["_index"], f[name].attrs["column-order"]
        f[name]["_index"] = np.array([f"{name}{i}".encode() for i in range(size)])


def dense(f: h5py.File, dtype: Any = "f4", **kwargs: Any) -> None:
    fixed_names(f)
    del f["X"]
    f.create_dataset("X", data=counts(dtype=dtype), **kwargs)


def chunked_names(f: h5py.File, **kwargs: Any) -> None:
    minimal(f)
    for name, size in (("obs", N), ("var", M)):
        del f[name]["_index"]
        data = np.array([f"{name}{i}" for i in range(size)], dtype=TEXT)
        f[name].create_dataset("_index", data=data, chunks=(3,), **kwargs)


def many(f: h5py.File) -> None:
    """Enough members and attributes to need trees."""
    fixed_names(f)
    f.create_group("uns")
    for i in range(40):
        f[f"uns/u{i}"] = i
    for i in range(12):
        f["obs"].attrs[f"a{i}"] = i


def records(f: h5py.File) -> None:
    """anndata 0.6."""
    x = sp.csr_matrix(counts())
    for name in ("X", "raw.X"):
        g = f.create_group(name)
        g.attrs["h5sparse_format"], g.attrs["h5sparse_shape"] = "csr", x.shape
        g["data"], g["indices"], g["indptr"] = x.data, x.indices, x.indptr
    for name, size in (("obs", N), ("var", M), ("raw.var", M)):
        r = np.zeros(size, dtype=[("index", "S8"), ("k", "i1"), ("x", "f4")])
        r["index"], r["k"] = [f"c{i}".encode() for i in range(size)], np.arange(size) % 2
        f[name] = r
    m = np.zeros(N, dtype=[("X_pca", "f4", (3,)), ("X_tsne", "f8", (2,))])
    f["obsm"] = m
    f["uns/k_categories"] = np.array([b"a", b"b"])


def codes(f: h5py.File) -> None:
    """anndata 0.7."""
    minimal(f)
    d = f["obs"]
    d["k"] = (np.arange(N) % 2).astype(np.int8)
    names = d.create_dataset("__categories/k", data=np.array(["a", "b"], dtype=TEXT))
    names.attrs["ordered"] = True
    d["k"].attrs["categories"] = names.ref
    d.attrs["column-order"] = np.array(["k"], dtype=TEXT)


def filtered(f: h5py.File) -> None:
    """Every filter of the library on one array each, and a chunk that is not written."""
    fixed_names(f)
    a = np.arange(48, dtype=np.int32).reshape(12, 4)
    f.create_group("uns")
    f.create_dataset("uns/gzip", data=a, chunks=(5, 3), compression="gzip", compression_opts=9)
    f.create_dataset("uns/shuffle", data=a, chunks=(5, 4), compression="gzip", shuffle=True)
    f.create_dataset("uns/lzf", data=a, chunks=(12, 4), compression="lzf", shuffle=True)
    f.create_dataset("uns/fletcher", data=a, chunks=(6, 4), fletcher32=True)
    f.create_dataset("uns/offset", data=a, chunks=(6, 4), scaleoffset=0)
    f.create_dataset("uns/all", data=a, chunks=(6, 4), shuffle=True, fletcher32=True, compression="gzip")
    f.create_dataset("uns/gap", (12, 4), "f4", chunks=(5, 4), fillvalue=2.5)[:2] = 1
    f.create_dataset("uns/big endian", data=a.astype(">i4"))
    f.create_dataset("uns/three", data=a.reshape(4, 3, 4), chunks=(3, 2, 4), fletcher32=True, shuffle=True)
    f.create_dataset("uns/scaled", data=a.astype("f4") / 4, chunks=(6, 4), scaleoffset=2, fillvalue=1)
    record = np.zeros(5, dtype=[("n", ">i2"), ("text", TEXT)])
    record["text"] = "text"
    f.create_dataset("uns/records", data=record, chunks=(2,), compression="gzip", fletcher32=True)
    f.create_dataset("uns/compact", data=a[:1].astype("u1"))


def hdf5(write: Callable[..., None], **kwargs: Any) -> Callable[[Path], None]:
    file = {k: kwargs.pop(k) for k in ("libver", "userblock_size", "track_order") if k in kwargs}

    def save(path: Path) -> None:
        with h5py.File(path, "w", **file) as f:
            write(f, **kwargs)

    return save


def anndata(make: Callable[[], ad.AnnData], **kwargs: Any) -> Callable[[Path], None]:
    return lambda path: make().write_h5ad(path, **kwargs)


H5AD: dict[str, Callable[[Path], None]] = {
    "minimal": hdf5(minimal),
    "fixed_names": hdf5(fixed_names),
    "gzip": hdf5(fixed_names, compression="gzip", shuffle=True),
    "lzf": hdf5(fixed_names, compression="lzf"),
    "fletcher": hdf5(fixed_names, fletcher32=True),
    "chunked_names": hdf5(chunked_names),
    "chunked_names_gzip": hdf5(chunked_names, compression="gzip"),
    "chunks": hdf5(dense, chunks=(4, 3)),
    "chunks_gzip": hdf5(dense, chunks=(4, 3), compression="gzip"),
    "dense_i8": hdf5(dense, dtype="i8"),
    "dense_big_endian": hdf5(dense, dtype=">f4"),
    "half": hdf5(dense, dtype="f2"),
    "many": hdf5(many),
    "records": hdf5(records),
    "codes": hdf5(codes),
    "filters": hdf5(filtered),
    "userblock": hdf5(fixed_names, userblock_size=512),
    "v108": hdf5(minimal, libver=("v108", "v108")),
    "v108_many": hdf5(many, libver=("v108", "v108"), track_order=True),
    "v110": hdf5(minimal, libver=("v110", "v110")),
    "v110_gzip": hdf5(chunked_names, libver=("v110", "v110"), compression="gzip"),
    "v110_filters": hdf5(filtered, libver=("v110", "v110")),
    "v110_many": hdf5(many, libver=("v110", "v110")),
    "ordered": hdf5(many, track_order=True),
    "frames": anndata(frames),
    "slots": anndata(slots),
    "slots_gzip": anndata(slots, compression="gzip"),
    "unstructured": anndata(unstructured),
    "no_matrix": anndata(lambda: ad.AnnData(obs=pd.DataFrame(index=["a", "b"]))),
    "empty": anndata(lambda: plain(sp.csr_matrix((0, 0), dtype=np.float32))),
}


def version_3(f: h5py.File, n_types: int = 1, **kwargs: Any) -> None:
    x = sp.csr_matrix(counts(dtype=np.int32))
    g = f.create_group("matrix")
    for name, values in (("data", x.data), ("indices", x.indices.astype("i8")), ("indptr", x.indptr.astype("i8"))):
        g.create_dataset(name, data=values, **kwargs)
    g["shape"] = np.array([M, N], np.int32)
    g.create_dataset("barcodes", data=np.array([f"AAC{i}-1".encode() for i in range(N)]), **kwargs)
    h = g.create_group("features")
    h["_all_tag_keys"] = np.array([b"genome"])
    types = [b"Gene Expression", b"Antibody Capture"]
    h["feature_type"] = np.array([types[i % n_types] for i in range(M)])
    h["genome"] = np.array([b"GRCh38"] * M)
    h["id"] = np.array([f"ENSG{i}".encode() for i in range(M)])
    h["name"] = np.array([f"G{i // 2}".encode() for i in range(M)])


def version_2(f: h5py.File, genomes: int = 1, **kwargs: Any) -> None:
    x = sp.csr_matrix(counts(dtype=np.int32))
    for k in range(genomes):
        g = f.create_group(f"hg{k}")
        for name in ("data", "indices", "indptr"):
            g.create_dataset(name, data=getattr(x, name), **kwargs)
        g["shape"] = np.array([M, N], np.int32)
        g["barcodes"] = np.array([f"AAC{i}-1".encode() for i in range(N)])
        g["genes"] = np.array([f"ENSG{i}".encode() for i in range(M)])
        g["gene_names"] = np.array([f"G{i}".encode() for i in range(M)])


TENX: dict[str, Callable[[Path], None]] = {
    "v3": hdf5(version_3),
    "v3_two_types": hdf5(version_3, n_types=2),
    "v3_gzip": hdf5(version_3, compression="gzip", shuffle=True, chunks=(3,)),
    "v3_lzf": hdf5(version_3, compression="lzf"),
    "v3_v110": hdf5(version_3, libver=("v110", "v110"), compression="gzip"),
    "v2": hdf5(version_2),
    "v2_gzip": hdf5(version_2, compression="gzip"),
}


def market(kind: str, entries: list[str], size: str = "4 3", comment: str = "%\n") -> str:
    return f"%%MatrixMarket matrix coordinate {kind} general\n{comment}{size} {len(entries)}\n" + "".join(
        e + "\n" for e in entries
    )


def folder(matrix: str, version: int = 3) -> bytes:
    barcodes = "".join(f"AAC{i}-1\n" for i in range(3))
    features = "".join(f"ENSG{i}\tG{i // 2}" + ("\tGene Expression\n" if version == 3 else "\n") for i in range(4))
    return "\f".join([matrix, barcodes, features]).encode()


MTX: dict[str, bytes] = {
    "integer": folder(market("integer", ["1 1 5", "2 1 1", "4 2 16777217", "3 3 2"])),
    "real": folder(market("real", ["1 1 5.25", "2 1 1e-3", "4 2 -1E+20", "3 3 inf"]), 2),
    "pattern": folder(market("pattern", ["4 1", "2 1", "1 3"])),
    "empty": folder(market("integer", [], comment='%metadata_json: {"format_version": 2}\n')),
    "crlf": folder(market("integer", ["1 1 5", "2 1 1"])).replace(b"\n", b"\r\n"),
    "two_types": folder(market("integer", ["1 1 5"])).replace(b"G1\tGene Expression", b"G1\tAntibody Capture"),
}

TABLE: dict[str, bytes] = {
    "csv": b"cell,MT-ND1,g1,g2\nc0,1,0,0.5\nc1,0,2,0\n",
    "tsv": b"\tc0\tc1\nMT-ND1\t1\t0\nENSG0001\t.5\t1e5\n",
    "semicolon": b"a;b\nx;1;2\ny;0;16777217\n",
    "quotes": b'\xef\xbb\xbf"","a ""b"", c","d"\r\n"x,1","1",2\r\n"y", 0 ,nan\r\n',
    "gz": gzip.compress(b"cell,g0,g1\nc0,1,0\nc1,0,2\n", mtime=0),
}


def pack(store: Path) -> bytes:
    """As store.hpp has it: a store of many files in one."""
    out = b""
    for path in sorted(p for p in store.rglob("*") if p.is_file() and p.name != ".zmetadata"):
        name, content = str(path.relative_to(store)).encode(), path.read_bytes()
        if path.name in ("zarr.json", ".zarray", ".zgroup", ".zattrs"):  # shorter
            metadata = json.loads(content)
            metadata.pop("consolidated_metadata", None)
            content = json.dumps(metadata).encode()
        out += struct.pack("<HI", len(name), len(content)) + name + content
    return out


def zarr_stores(folder: Path) -> None:
    """Both versions, all encodings, codecs, types and layouts of chunks."""
    import numcodecs
    import zarr
    from zarr.codecs import (
        BloscCodec,
        BytesCodec,
        Crc32cCodec,
        GzipCodec,
        ShardingCodec,
        TransposeCodec,
        ZstdCodec,
    )

    def save(name: str, write: Callable[[Path], None]) -> None:
        with tempfile.TemporaryDirectory() as temporary:
            store = Path(temporary) / "a.zarr"
            write(store)
            (folder / name).write_bytes(pack(store))

    def stored(version: int, make: Callable[[], ad.AnnData]) -> Callable[[Path], None]:
        def write(path: Path) -> None:
            with ad.settings.override(zarr_write_format=version):
                make().write_zarr(path, convert_strings_to_categoricals=False)

        return write

    def small(path: Path, version: int) -> Any:
        """No more than a reader needs."""
        f = zarr.open_group(path, mode="w", zarr_format=version)
        f.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})
        for name, size in (("obs", N), ("var", M)):
            d = f.create_group(name)
            d.attrs.update({"encoding-type": "dataframe", "encoding-version": "0.2.0", "_index": "_index"})
            d.attrs["column-order"] = []
            array(d, "_index", np.array([f"{name}{i}" for i in range(size)], dtype="U5"), compressors=None)
        return f

    def array(group: Any, name: str, x: np.ndarray, gap: bool = False, **how: Any) -> None:
        d = group.create_array(name, shape=x.shape, dtype=x.dtype, **{"chunks": x.shape, **how})
        d.attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})
        if gap:
            d[: how["chunks"][0]] = x[: how["chunks"][0]]
        else:
            d[...] = x

    def sparse(path: Path, version: int, **how: Any) -> None:
        g = small(path, version).create_group("X")
        x = sp.csr_matrix(counts())
        g.attrs.update({"encoding-type": "csr_matrix", "encoding-version": "0.1.0", "shape": list(x.shape)})
        for name in ("data", "indices", "indptr"):
            array(g, name, getattr(x, name), **{"chunks": (3,), **how})

    def dense(path: Path, version: int, **how: Any) -> None:
        array(small(path, version), "X", counts(), **{"chunks": (4, 3), **how})

    a = np.arange(48, dtype=np.int32).reshape(12, 4)
    text = np.array(["a", "bc", ""])
    record = np.zeros(3, dtype=[("a", "<i4"), ("b", "<f4"), ("c", "S3")])

    def codecs_2(path: Path) -> None:
        u = small(path, 2).create_group("uns")
        inner = [numcodecs.Blosc(c, 5, s) for c in ("lz4", "lz4hc", "zstd", "zlib", "blosclz") for s in (0, 1, 2)]
        for k, c in enumerate([numcodecs.Zlib(3), numcodecs.GZip(2), numcodecs.Zstd(5), numcodecs.LZ4(), *inner]):
            array(u, f"codec{k}", a, chunks=(5, 3), compressors=c)
        array(u, "shuffle", a, chunks=(5, 3), compressors=numcodecs.Zlib(1), filters=[numcodecs.Shuffle(4)])

    def types_2(path: Path) -> None:
        u = small(path, 2).create_group("uns")
        for dtype in ("i1", ">i2", "<u4", ">u8", "<f2", ">f4", "f8", "?", "<c8", ">c16"):
            array(u, dtype.strip("<>"), a.astype(dtype), compressors=None)
        for name, x in (("U", text), ("S", text.astype("S4")), ("record", record), ("scalar", np.float32(3)[()])):
            array(u, name, np.asarray(x), compressors=None)
        array(u, "F", a, chunks=(5, 3), order="F", compressors=None)
        array(u, "gap", a, gap=True, chunks=(5, 4), fill_value=7, compressors=None)
        array(u, "slash", a, chunks=(5, 4), chunk_key_encoding={"name": "v2", "separator": "/"}, compressors=None)

    def codecs_3(path: Path) -> None:
        u = small(path, 3).create_group("uns")
        for k, how in enumerate(
            (
                {"compressors": [GzipCodec(level=3)]},
                {"compressors": [ZstdCodec(level=3, checksum=True)]},
                {"compressors": [ZstdCodec(), Crc32cCodec()]},
                {"compressors": [BloscCodec(cname="lz4", shuffle="bitshuffle")]},
                {"compressors": [BloscCodec(cname="zstd", shuffle="shuffle")], "serializer": BytesCodec(endian="big")},
                {"compressors": None, "filters": [TransposeCodec(order=(1, 0))]},
                {"compressors": [Crc32cCodec()]},
                {"compressors": None, "chunk_key_encoding": {"name": "v2", "separator": "."}},
                {"compressors": None, "gap": True, "fill_value": 7},
            )
        ):
            array(u, f"codec{k}", a, chunks=(5, 4), **how)

    def shards_3(path: Path) -> None:
        u = small(path, 3).create_group("uns")
        big = BytesCodec(endian="big")
        array(u, "zstd", a, chunks=(3, 2), shards=(6, 4), compressors=[ZstdCodec()])
        array(u, "plain", a, chunks=(3, 2), shards=(12, 4), compressors=None, serializer=big)
        array(u, "gap", a, gap=True, chunks=(3, 4), shards=(12, 4), compressors=[Crc32cCodec()])
        turned = [TransposeCodec(order=(1, 0))]
        array(u, "turned", a, chunks=(4, 2), shards=(12, 4), compressors=[ZstdCodec()], filters=turned)
        start = ShardingCodec(chunk_shape=(5, 2), codecs=[BytesCodec()], index_location="start")
        array(u, "start", a, chunks=(10, 4), serializer=start, compressors=None)

    for version in (2, 3):
        save(f"frames_{version}", stored(version, frames))
        save(f"slots_{version}", stored(version, slots))
        save(f"unstructured_{version}", stored(version, unstructured))
        for kind in (sparse, dense):
            name = f"{kind.__name__}_{version}"
            save(name, lambda p, kind=kind, version=version: kind(p, version))
            save(f"{name}_plain", lambda p, kind=kind, version=version: kind(p, version, compressors=None))
    save("sparse_shards", lambda p: sparse(p, 3, shards=(6,), compressors=None))
    for write in (codecs_2, types_2, codecs_3, shards_3):
        save(write.__name__, write)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    out = parser.parse_args().folder
    warnings.simplefilter("ignore")
    for name, files in {"h5ad": H5AD, "10x": TENX, "mtx": MTX, "table": TABLE}.items():
        (out / name).mkdir(parents=True, exist_ok=True)
        for key, content in files.items():
            path = out / name / key
            if isinstance(content, bytes):
                path.write_bytes(content)
            else:
                content(path)
    (out / "zarr").mkdir(exist_ok=True)
    try:
        zarr_stores(out / "zarr")
    except ImportError as e:
        print(f"no Zarr stores: {e}")


if __name__ == "__main__":
    main()
