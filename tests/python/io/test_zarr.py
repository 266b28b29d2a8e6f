"""Zarr stores, live against anndata and zarr-python."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from same_anndata import check_same
from same_anndata import check_same_in_any_order as check
from test_h5ad import M, N, counts, everything

import scwarp as scw
from scwarp import _core
from scwarp._context import make_context

zarr = pytest.importorskip("zarr", minversion="3")
numcodecs = pytest.importorskip("numcodecs")


pytestmark = pytest.mark.filterwarnings("ignore")


def write(a: ad.AnnData, path: Path, version: int) -> None:
    with ad.settings.override(zarr_write_format=version):
        a.write_zarr(path)


def copy(
    source: Path, target: Path, version: int = 2, codec: str = "lz4", level: int = -1, shards: bool = False
) -> None:
    _core.io.copy_file(make_context(op="test"), str(source), str(target), version, codec, level, shards)


def convert(
    source: Path, target: Path, version: int = 2, codec: str = "lz4", level: int | None = None, shards: bool = False
) -> None:
    """The same as copy, with the values of matrices never in memory."""
    how: dict[str, Any] = {}
    if version != 0:
        how = {"zarr_format": version, "compression": None if codec == "none" else codec, "shards": shards}
    scw.convert(source, target, compression_level=None if level == -1 else level, **how)


def test_read_knows_it_by_content(tmp_path: Path) -> None:
    write(everything(), tmp_path / "folder", 3)
    check(scw.read(tmp_path / "folder"), scw.read_zarr(tmp_path / "folder"))


def contents(store: Path) -> dict[str, bytes]:
    return {str(p.relative_to(store)): p.read_bytes() for p in sorted(store.rglob("*")) if p.is_file()}


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize(
    ("to", "codec", "shards"),
    [(2, "lz4", False), (2, "gzip", False), (3, "zstd", False), (3, "blosc-zstd", True), (3, "none", True)],
)
@pytest.mark.parametrize("streamed", [False, True])
def test_everything(tmp_path: Path, version: int, to: int, codec: str, shards: bool, streamed: bool) -> None:
    write(everything(), tmp_path / "a.zarr", version)
    (convert if streamed else copy)(tmp_path / "a.zarr", tmp_path / "b.zarr", to, codec, -1, shards)
    check(ad.read_zarr(tmp_path / "a.zarr"), ad.read_zarr(tmp_path / "b.zarr"))
    check(ad.read_zarr(tmp_path / "a.zarr"), scw.read_zarr(tmp_path / "a.zarr"))


@pytest.mark.parametrize("compression", [None, "gzip", "lzf"])
@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize(("version", "shards"), [(2, False), (3, False), (3, True)])
def test_from_and_to_h5ad(tmp_path: Path, version: int, shards: bool, streamed: bool, compression: Any) -> None:
    everything().write_h5ad(tmp_path / "a.h5ad", compression=compression)
    way = convert if streamed else copy
    way(tmp_path / "a.h5ad", tmp_path / "b.zarr", version, "lz4", -1, shards)
    way(tmp_path / "b.zarr", tmp_path / "c.h5ad", 0)
    expected = ad.read_h5ad(tmp_path / "a.h5ad")
    check(expected, ad.read_zarr(tmp_path / "b.zarr"))
    check(expected, ad.read_h5ad(tmp_path / "c.h5ad"))


@pytest.mark.parametrize(("version", "shards"), [(2, False), (3, False), (3, True)])
def test_python(tmp_path: Path, version: Any, shards: bool) -> None:
    a = everything()
    before = a.copy()
    scw.write_zarr(a, tmp_path / "a.zarr", zarr_format=version, shards=shards)
    check(a, before)
    write(a.copy(), tmp_path / "b.zarr", version)
    expected, got = ad.read_zarr(tmp_path / "b.zarr"), ad.read_zarr(tmp_path / "a.zarr")
    del expected.uns["none"], expected.uns["rank_genes_groups"]["params"]["layer"]
    check(expected, got)
    check(got, scw.read_zarr(tmp_path / "a.zarr"))


@pytest.mark.parametrize(("version", "codec", "shards"), [(2, "lz4", False), (3, "zstd", True), (3, "gzip", False)])
def test_bytes_do_not_depend_on_threads(tmp_path: Path, version: int, codec: str, shards: bool) -> None:
    a = ad.AnnData(sp.random(4000, 3000, 0.2, format="csr", dtype=np.float32, random_state=1))
    a.write_h5ad(tmp_path / "a.h5ad")
    for n in (1, 3):
        context = _core.Context("cpu", n, 0, 0, None, None)
        _core.io.copy_file(context, str(tmp_path / "a.h5ad"), str(tmp_path / f"{n}.zarr"), version, codec, -1, shards)
    assert contents(tmp_path / "1.zarr") == contents(tmp_path / "3.zarr")
    assert (ad.read_zarr(tmp_path / "1.zarr").X != a.X).nnz == 0
    assert (scw.read_zarr(tmp_path / "1.zarr").X != a.X).nnz == 0


V2 = [
    {"compressor": c, "filters": f, "order": order}
    for c in (
        None,
        numcodecs.Zlib(3),
        numcodecs.GZip(2),
        numcodecs.Zstd(5),
        numcodecs.LZ4(),
        *(
            numcodecs.Blosc(inner, 5, shuffle)
            for inner in ("lz4", "lz4hc", "zstd", "zlib", "blosclz")
            for shuffle in (0, 1, 2)
        ),
    )
    for f in (None,)
    for order in ("C",)
] + [
    {"compressor": numcodecs.Zlib(1), "filters": [numcodecs.Shuffle(4)], "order": "C"},
    {"compressor": numcodecs.Zstd(1), "filters": None, "order": "F"},
]


@pytest.mark.parametrize("how", V2, ids=str)
@pytest.mark.parametrize("separator", [".", "/"])
def test_version_2_codecs(tmp_path: Path, how: dict[str, Any], separator: str) -> None:
    x = counts()
    check_chunks(tmp_path, x, 2, {**how, "chunk_key_encoding": {"name": "v2", "separator": separator}})


def v3_codecs() -> list[dict[str, Any]]:
    from zarr.codecs import BloscCodec, BytesCodec, Crc32cCodec, GzipCodec, TransposeCodec, ZstdCodec

    big = BytesCodec(endian="big")
    return [
        {"compressors": None},
        {"compressors": [GzipCodec(level=3)]},
        {"compressors": [ZstdCodec(level=3, checksum=True)]},
        {"compressors": [ZstdCodec(), Crc32cCodec()]},
        {"compressors": [BloscCodec(cname="lz4", shuffle="bitshuffle")]},
        {"compressors": [BloscCodec(cname="zstd", shuffle="shuffle")], "serializer": big},
        {"compressors": [ZstdCodec()], "filters": [TransposeCodec(order=(1, 0))]},
        {"compressors": [ZstdCodec()], "shards": (20, 24)},
        {"compressors": [ZstdCodec(), Crc32cCodec()], "shards": (10, 8), "filters": [TransposeCodec(order=(1, 0))]},
        {"compressors": None, "shards": (40, 8), "serializer": big},
        {"compressors": [GzipCodec()], "chunk_key_encoding": {"name": "v2", "separator": "."}},
    ]


@pytest.mark.parametrize("k", range(11))
def test_version_3_codecs(tmp_path: Path, k: int) -> None:
    check_chunks(tmp_path, counts(), 3, v3_codecs()[k])


@pytest.mark.parametrize("where", ["start", "end"])
def test_index_of_shards(tmp_path: Path, where: str) -> None:
    from zarr.codecs import BytesCodec, ShardingCodec, ZstdCodec

    inner = ShardingCodec(chunk_shape=(5, 8), codecs=[BytesCodec(), ZstdCodec()], index_location=where)
    check_chunks(tmp_path, counts(), 3, {"serializer": inner, "compressors": None, "chunks": (20, 24)})


def check_chunks(folder: Path, x: np.ndarray, version: int, how: dict[str, Any]) -> None:
    """X in chunks of (5, 8), the first of them never written."""
    a = ad.AnnData(
        obs=pd.DataFrame(index=[f"c{i}" for i in range(N)]), var=pd.DataFrame(index=[f"g{i}" for i in range(M)])
    )
    write(a, folder / "a.zarr", version)
    f = zarr.open_group(folder / "a.zarr", mode="r+", use_consolidated=False)
    expected = x.copy()
    expected[:5, :8] = 3
    d = f.create_array("X", shape=x.shape, dtype=x.dtype, fill_value=3, **{"chunks": (5, 8), **how})
    d[...] = expected
    d.attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})
    got, shape, layout, dtype = _core.io.read_zarr_matrix(make_context(op="test"), str(folder / "a.zarr"))
    assert (shape, layout, dtype) == ((N, M), "dense", "float32")
    check_same(expected, got, "X")


def test_unknown_codec_is_named(tmp_path: Path) -> None:
    a = ad.AnnData(counts())
    write(a, tmp_path / "a.zarr", 2)
    meta = tmp_path / "a.zarr/X/.zarray"
    meta.write_text(json.dumps({**json.loads(meta.read_text()), "compressor": {"id": "lzma"}}))
    with pytest.raises(NotImplementedError, match="codec 'lzma'"):
        _core.io.read_zarr_matrix(make_context(op="test"), str(tmp_path / "a.zarr"))


def damage(store: Path, **changes: Any) -> None:
    meta = store / "X/.zarray"
    meta.write_text(json.dumps({**json.loads(meta.read_text()), **changes}))


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"shape": [2**62, 2**62]}, "more elements than"),
        ({"shape": [2**40, 2]}, "declares"),
        ({"chunks": [0, 1]}, "chunks"),
        ({"chunks": [2**40, 2**40]}, "too large"),
        ({"chunks": [2**19, 2**18]}, "declares"),
        ({"chunks": [N]}, "dimensions"),
        ({"dtype": "<f3000000000"}, "type"),
        ({"order": "Z"}, "order"),
        ({"dimension_separator": "../"}, "separator"),
        ({"dtype": "<f8"}, "damaged"),
    ],
    ids=str,
)
def test_damaged_metadata(tmp_path: Path, changes: dict[str, Any], text: str) -> None:
    write(ad.AnnData(counts()), tmp_path / "a.zarr", 2)
    damage(tmp_path / "a.zarr", **changes)
    with pytest.raises(ValueError, match=text):
        _core.io.read_zarr_matrix(make_context(op="test"), str(tmp_path / "a.zarr"))


def test_nothing_outside_the_store_is_read(tmp_path: Path) -> None:
    write(ad.AnnData(counts()), tmp_path / "a.zarr", 2)
    write(ad.AnnData(counts()), tmp_path / "b.zarr", 2)
    context = make_context(op="test")
    for name in ("../b.zarr/X", "layers/../X", "/X", "."):
        with pytest.raises(ValueError, match="has no"):
            _core.io.read_zarr_matrix(context, str(tmp_path / "a.zarr"), name)
    (tmp_path / "a.zarr/layers/linked").symlink_to(tmp_path / "b.zarr/X")
    with pytest.raises(ValueError, match="has no"):
        _core.io.read_zarr_matrix(context, str(tmp_path / "a.zarr"), "layers/linked")
    (tmp_path / "a.zarr/X/0.0").unlink()
    (tmp_path / "a.zarr/X/0.0").symlink_to(tmp_path / "b.zarr/X/0.0")
    with pytest.raises(OSError, match="cannot open"):
        _core.io.read_zarr_matrix(context, str(tmp_path / "a.zarr"))


def test_an_existing_store_is_replaced_as_a_whole(tmp_path: Path) -> None:
    a = ad.AnnData(counts())
    scw.write_zarr(a, tmp_path / "a.zarr")
    (tmp_path / "a.zarr/stale").mkdir()
    scw.write_zarr(a, tmp_path / "a.zarr", zarr_format=3)
    assert sorted(os.listdir(tmp_path)) == ["a.zarr"]
    assert not (tmp_path / "a.zarr/stale").exists()
    assert not (tmp_path / "a.zarr/.zgroup").exists()
    copy(tmp_path / "a.zarr", tmp_path / "a.zarr", 3)
    check(ad.read_zarr(tmp_path / "a.zarr"), scw.read_zarr(tmp_path / "a.zarr"))
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious/file").write_text("not ours")
    with pytest.raises(OSError, match="is not a Zarr store"):
        scw.write_zarr(a, tmp_path / "precious")
    assert (tmp_path / "precious/file").read_text() == "not ours"
    a.uns[".zarray"] = 1
    with pytest.raises(ValueError, match="cannot be the name"):
        scw.write_zarr(a, tmp_path / "a.zarr")
    assert sorted(os.listdir(tmp_path)) == ["a.zarr", "precious"]
    check_same(ad.read_zarr(tmp_path / "a.zarr").X, a.X, "X")


def test_what_zarr_has_no_form_for_is_left_out_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    import h5py

    a = ad.AnnData(counts())
    a.write_h5ad(tmp_path / "a.h5ad")
    with h5py.File(tmp_path / "a.h5ad", "r+") as f:
        f["uns/sequences"] = np.array([np.arange(2), np.arange(3)], dtype=object).astype(h5py.vlen_dtype(np.int64))
    with caplog.at_level("WARNING", "scwarp"):
        copy(tmp_path / "a.h5ad", tmp_path / "b.zarr")
    assert "'/uns/sequences' has no form in Zarr version 2 and is left out" in caplog.text
    assert "sequences" not in ad.read_zarr(tmp_path / "b.zarr").uns
