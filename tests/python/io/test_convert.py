"""convert and concat_on_disk, beside anndata reading, concatenating and writing."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

import scwarp as scw

sys.path.insert(0, str(Path(__file__).parent))
from same_anndata import check_same_in_any_order, ordered
from test_h5ad import check_same_adata, everything

PROGRAM = Path(os.environ.get("SCWARP_PROGRAM", Path(__file__).parents[3] / "build/dev/cli/scwarp"))


def read(path: Path) -> ad.AnnData:
    return ad.read_zarr(path) if path.suffix == ".zarr" else ad.read_h5ad(path)


@pytest.mark.parametrize("compression", [None, "gzip", "lzf"])
def test_convert_carries_everything(tmp_path: Path, compression: Any) -> None:
    everything().write_h5ad(tmp_path / "a.h5ad", compression=compression)
    scw.io.convert(tmp_path / "a.h5ad", tmp_path / "b.h5ad")
    check_same_adata(ad.read_h5ad(tmp_path / "a.h5ad"), ad.read_h5ad(tmp_path / "b.h5ad"))
    scw.io.convert(tmp_path / "b.h5ad", tmp_path / "c.h5ad", compression="zstd")
    scw.io.convert(tmp_path / "c.h5ad", tmp_path / "d.h5ad", compression=None)
    check_same_adata(ad.read_h5ad(tmp_path / "a.h5ad"), ad.read_h5ad(tmp_path / "d.h5ad"))


@pytest.mark.parametrize("name", ["a.h5ad", "a.zarr"])
@pytest.mark.filterwarnings("ignore")
def test_convert_onto_itself_and_refusals(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    everything().write_h5ad(path) if name == "a.h5ad" else everything().write_zarr(path)
    expected = read(path)
    with pytest.raises(ValueError, match="is there already"):
        scw.io.convert(path, path)
    scw.io.convert(path, path, overwrite=True)
    check_same_in_any_order(expected, read(path))
    with pytest.raises(ValueError, match=r"x\.loom.*no known format"):
        scw.io.convert(path, tmp_path / "x.loom")
    (tmp_path / "other.zarr").mkdir()
    (tmp_path / "other.zarr/file").write_text("precious")
    with pytest.raises(OSError, match="is not a Zarr store"):
        scw.io.convert(path, tmp_path / "other.zarr", overwrite=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == [name, "other.zarr"]
    assert (tmp_path / "other.zarr/file").read_text() == "precious"


def test_options_of_the_formats(tmp_path: Path) -> None:
    path = tmp_path / "a.h5ad"
    x = sp.random(500, 300, 0.3, "csr", np.float32, random_state=0)
    ad.AnnData(x).write_h5ad(path)
    wrong: list[tuple[str, dict[str, Any], str]] = [
        ("b.h5ad", {"compression": "lz4"}, "must be gzip, zstd or none for h5ad"),
        ("b.h5ad", {"zarr_format": 2}, "versions and shards are Zarr's"),
        ("b.h5ad", {"shards": True}, "versions and shards are Zarr's"),
        ("b.zarr", {"compression": "lzf"}, "must be lz4, blosc-zstd, zstd, gzip or none"),
        ("b.zarr", {"zarr_format": 4}, "zarr_format must be 2 or 3"),
        ("b.zarr", {"zarr_format": 2, "shards": True}, "shards need version 3"),
        ("b.zarr", {"compression_level": 10}, "level must be 0 to 9"),
        ("b.zarr", {"chunk_bytes": 100}, "chunk_bytes must be"),
    ]
    for name, options, message in wrong:
        with pytest.raises(ValueError, match=message):
            scw.convert(path, tmp_path / name, **options)
    assert [p.name for p in tmp_path.iterdir()] == ["a.h5ad"]
    scw.convert(path, tmp_path / "small.zarr", chunk_bytes=1 << 14, compression="gzip", compression_level=9)
    array = json.loads((tmp_path / "small.zarr/X/data/.zarray").read_text())
    assert array["chunks"] == [1 << 12] and array["compressor"] == {"id": "gzip", "level": 9}
    scw.convert(path, f"{tmp_path}/shards.zarr/", shards=True, chunk_bytes=1 << 14)
    array = json.loads((tmp_path / "shards.zarr/X/data/zarr.json").read_text())
    assert array["codecs"][0]["name"] == "sharding_indexed"
    for name in ("small.zarr", "shards.zarr"):
        assert (x != ad.read_zarr(tmp_path / name).X).nnz == 0


@pytest.mark.parametrize("way", [["b.zarr"], ["b.zarr", "c.zarr"], ["b.zarr", "c.h5ad"]], ids=str)
@pytest.mark.parametrize("options", [{}, {"zarr_format": 3}, {"shards": True, "compression": "zstd"}], ids=str)
def test_convert_in_many_pieces(tmp_path: Path, way: list[str], options: dict[str, Any]) -> None:
    """Several chunks of every array, of sizes that do not fit each other."""
    r = np.random.default_rng(0)
    x = sp.random(3000, 2000, 0.2, "csr", np.float32, random_state=r)
    a = ad.AnnData(x, layers={"t": (x * 3).tocsc(), "d": r.normal(size=(3000, 2000)), "n": x.astype(np.uint16)})
    a.obsp["distances"] = sp.random(3000, 3000, 0.05, "csr", random_state=r)
    a.write_h5ad(tmp_path / "a.h5ad", compression="lzf")
    source = tmp_path / "a.h5ad"
    for k, name in enumerate(way):
        how = dict(options) if name.endswith(".zarr") else {}
        scw.convert(source, tmp_path / name, chunk_bytes=(300_000, 1_000_000)[k], **how)
        source = tmp_path / name
    check_same_in_any_order(a, read(source))
    if source.suffix == ".zarr":
        # Chunks larger than the pieces that are asked for, unpacked once for all threads that want parts of them.
        scw.convert(source, tmp_path / "d.h5ad", chunk_bytes=1 << 14)
        check_same_in_any_order(a, read(tmp_path / "d.h5ad"))


def test_convert_large_chunks_and_wide_indices(tmp_path: Path) -> None:
    import h5py

    r = np.random.default_rng(0)
    x = sp.random(4000, 3000, 0.1, "csr", np.float32, random_state=r)
    ad.AnnData(x, layers={"t": x.tocsc(), "d": r.normal(size=(4000, 3000)).astype("f4")}).write_h5ad(
        tmp_path / "a.h5ad"
    )
    with h5py.File(tmp_path / "a.h5ad", "a") as f:
        for name in ("indices", "data"):
            values = f["X"][name][:]
            del f["X"][name]
            wide = values.astype(np.int64) if name == "indices" else values
            f["X"].create_dataset(name, data=wide, chunks=(500_000,), compression="gzip")
    scw.io.convert(tmp_path / "a.h5ad", tmp_path / "b.h5ad", chunk_bytes=1 << 16)
    a, b = ad.read_h5ad(tmp_path / "a.h5ad"), ad.read_h5ad(tmp_path / "b.h5ad")
    for m, n in ((a.X, b.X), (a.layers["t"], b.layers["t"])):
        assert m.format == n.format
        np.testing.assert_array_equal(m.indptr, n.indptr)
        np.testing.assert_array_equal(m.indices, n.indices)
        np.testing.assert_array_equal(m.data, n.data)
    np.testing.assert_array_equal(a.layers["d"], b.layers["d"])


def test_convert_10x(tmp_path: Path) -> None:
    import h5py

    r = np.random.default_rng(0)
    x = sp.csr_matrix(r.poisson(0.3, (50, 30)).astype(np.int32))
    with h5py.File(tmp_path / "x.h5", "w") as f:
        g = f.create_group("matrix")
        g["data"], g["indices"], g["indptr"] = x.data, x.indices.astype("i8"), x.indptr.astype("i8")
        g["shape"] = np.array([30, 50], "i4")
        g["barcodes"] = np.array([f"AC{i}-1" for i in range(50)], "S")
        t = g.create_group("features")
        t["id"], t["name"] = (np.array([f"{k}{i}" for i in range(30)], "S") for k in ("ENSG", "G"))
        t["feature_type"] = np.array(["Gene Expression"] * 20 + ["Antibody Capture"] * 10, "S")
    for gex_only in (True, False):
        scw.io.convert(tmp_path / "x.h5", tmp_path / "b.h5ad", gex_only=gex_only, overwrite=True)
        a, b = scw.read_10x_h5(tmp_path / "x.h5", gex_only=gex_only), ad.read_h5ad(tmp_path / "b.h5ad")
        np.testing.assert_array_equal(a.X.toarray(), b.X.toarray())
        assert list(a.var_names) == list(b.var_names) and list(a.obs_names) == list(b.obs_names)
        assert list(a.var["gene_ids"]) == list(b.var["gene_ids"])
        assert b.X.dtype == np.int32


@pytest.mark.parametrize("order", ["cells", "genes", "any"])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("large", [False, True])
def test_convert_a_folder(tmp_path: Path, order: str, packed: bool, large: bool) -> None:
    """What goes through a temporary file is what the reader gives, bit by bit."""
    r = np.random.default_rng(1)
    x = sp.random(3000, 200, 0.2, "csr", random_state=r, dtype=np.float64)
    x.data = np.ceil(x.data * 20)
    x.data[7] = 2.0**24 + 1 if large else 0.5
    x = x.tocoo()
    lines = np.arange(x.nnz) if order == "cells" else np.lexsort((x.row, x.col))
    if order == "any":
        r.shuffle(lines)
    text = f"%%MatrixMarket matrix coordinate real general\n200 3000 {x.nnz}\n"
    text += "".join(f"{x.col[k] + 1} {x.row[k] + 1} {x.data[k]:.17g}\n" for k in lines)
    types = [("Gene Expression", "Antibody Capture")[j % 5 == 0] for j in range(200)]
    folder = tmp_path / "in"
    folder.mkdir()
    for name, content in (
        ("matrix.mtx", text),
        ("barcodes.tsv", "".join(f"c{i}\n" for i in range(3000))),
        ("features.tsv", "".join(f"id{j}\tg{j}\t{t}\n" for j, t in enumerate(types))),
    ):
        if packed:
            (folder / f"{name}.gz").write_bytes(gzip.compress(content.encode(), 1))
        else:
            (folder / name).write_text(content)
    for gex_only in (True, False):
        expected = scw.read_10x_mtx(folder, gex_only=gex_only)
        assert expected.X.dtype == (np.float64 if large else np.float32)
        for name in ("a.h5ad", "a.zarr"):
            scw.convert(folder, tmp_path / name, overwrite=True, gex_only=gex_only)
            got = read(tmp_path / name)
            assert got.X.dtype == expected.X.dtype and (got.X != expected.X).nnz == 0
            np.testing.assert_array_equal(got.X.indptr, expected.X.indptr)
            np.testing.assert_array_equal(got.X.indices, expected.X.indices)
            pd.testing.assert_frame_equal(got.obs, expected.obs)
            pd.testing.assert_frame_equal(got.var.astype(str), expected.var.astype(str))
    scw.io.concat_on_disk([folder, folder], tmp_path / "two.h5ad")
    got = ad.read_h5ad(tmp_path / "two.h5ad")
    assert (sp.vstack([scw.read_10x_mtx(folder).X] * 2) != got.X).nnz == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.h5ad", "a.zarr", "in", "two.h5ad"]


def one(seed: int, n: int, genes: list[str], dtype: Any = np.float32, make: Any = sp.csr_matrix) -> ad.AnnData:
    r = np.random.default_rng(seed)
    a = ad.AnnData(make(r.poisson(0.5, (n, len(genes))).astype(dtype)))
    a.obs_names, a.var_names = [f"c{seed}_{i}" for i in range(n)], genes
    a.obs["x"] = r.normal(size=n)
    a.obs["n"] = np.arange(n)
    a.obs["k"] = pd.Categorical(np.array(["u", "v", f"w{seed}"])[np.arange(n) % 3])
    a.obs["flag"] = np.arange(n) % 2 == 0
    if seed % 2:
        a.obs["odd"] = np.arange(n, dtype=np.int32)
        a.obs["odd flag"] = np.arange(n) % 3 == 0
        a.obs["odd kind"] = pd.Categorical(["z"] * n)
    a.var["length"] = [len(g) * 7 + int(g[1:]) for g in genes]
    a.var["other"] = np.arange(len(genes)) * (seed + 1.0)
    a.var[f"own {seed}"] = "t"
    a.layers["counts"] = make(r.poisson(0.5, (n, len(genes))).astype(np.int64))
    if seed % 2:
        a.layers["odd"] = a.layers["counts"].copy()
    a.obsm["X_pca"] = r.normal(size=(n, 4)).astype(np.float32)
    a.uns = {"same": 3, "seed": seed, "nested": {"a": 1, f"b{seed}": "t"}, "names": np.array(["p", "q"])}
    return a


def genes(*numbers: int) -> list[str]:
    return [f"g{i}" for i in numbers]


CASES = {
    "same genes": [genes(*range(9)), genes(*range(9))],
    "other order": [genes(*range(9)), genes(*reversed(range(9)))],
    "overlap": [genes(*range(9)), genes(5, 3, 12, 7, 20), genes(7, 5, 1, 3)],
    "nothing in common": [genes(1, 2), genes(3, 4)],
    "an empty input": [genes(*range(5)), genes(*range(3))],
}


def check_concat(expected: ad.AnnData, got: ad.AnnData) -> None:
    assert list(expected.var_names) == list(got.var_names) and list(expected.obs_names) == list(got.obs_names)
    for e, g in ((expected.X, got.X), *((expected.layers[k], got.layers[k]) for k in expected.layers)):
        assert sp.issparse(e) == sp.issparse(g) and e.dtype == g.dtype
        e, g = (m.toarray() if sp.issparse(m) else m for m in (e, g))
        np.testing.assert_array_equal(e, g)
    assert set(expected.layers) == set(got.layers)
    pd.testing.assert_frame_equal(expected.obs, got.obs, check_names=False)
    pd.testing.assert_frame_equal(expected.var, got.var, check_names=False)
    assert set(expected.obsm) == set(got.obsm)
    for k in expected.obsm:
        np.testing.assert_array_equal(expected.obsm[k], got.obsm[k])


@pytest.mark.parametrize("make", [sp.csr_matrix, sp.csc_matrix, np.asarray])
@pytest.mark.parametrize("join", ["inner", "outer"])
@pytest.mark.parametrize("case", CASES)
@pytest.mark.filterwarnings("ignore")
def test_concat(tmp_path: Path, case: str, join: Any, make: Any) -> None:
    parts = [
        one(seed, 0 if case == "an empty input" and seed == 1 else 20 + seed, names, make=make)
        for seed, names in enumerate(CASES[case])
    ]
    files: list[Path] = []
    stores: list[Path] = []
    for k, a in enumerate(parts):
        files.append(tmp_path / f"{k}.h5ad")
        a.write_h5ad(files[-1])
        stores.append(tmp_path / f"{k}.zarr")
        scw.convert(files[-1], stores[-1], zarr_format=2 + k % 2)
    parts = [ad.read_h5ad(f) for f in files]
    for merge in (None, "same", "unique", "first", "only"):
        options: dict[str, Any] = {
            "join": join,
            "merge": merge,
            "label": "batch",
            "keys": [f"k{i}" for i in range(len(parts))],
            "index_unique": "-" if merge is None else None,
        }
        expected = ad.concat(parts, uns_merge=merge, **options)
        expected.write_h5ad(tmp_path / "expected.h5ad")
        expected = ad.read_h5ad(tmp_path / "expected.h5ad")
        for inputs, name, how in (
            (files, "out.h5ad", {}),
            (stores, "out.zarr", {}),
            (files, "out.zarr", {"shards": True}),
        ):
            scw.io.concat_on_disk(inputs, tmp_path / name, overwrite=True, uns_merge=merge, **options, **how)
            got = read(tmp_path / name)
            check_concat(expected, got)
            assert repr(ordered(expected).uns) == repr(ordered(got).uns)


def test_concat_types_and_raw(tmp_path: Path) -> None:
    a, b = one(0, 30, genes(*range(6)), np.float32), one(1, 20, genes(4, 2, 0, 9), np.float64)
    for k, x in enumerate((a, b)):
        x.raw = x.copy()
        x.layers["counts"] = x.layers["counts"].astype([np.uint8, np.int16][k])
        x.write_h5ad(tmp_path / f"{k}.h5ad")
    scw.io.concat_on_disk({"a": tmp_path / "0.h5ad", "b": tmp_path / "1.h5ad"}, tmp_path / "o.h5ad", label="from")
    expected = ad.concat({"a": a, "b": b}, label="from")
    got = ad.read_h5ad(tmp_path / "o.h5ad")
    check_concat(expected, got)
    assert got.layers["counts"].dtype == np.int16
    np.testing.assert_array_equal(got.raw.X.toarray(), expected.raw.X.toarray())
    assert list(got.raw.var_names) == list(expected.raw.var_names)


def test_concat_refusals(tmp_path: Path) -> None:
    a, b = one(0, 5, genes(1, 2, 3)), one(1, 5, ["g1", "g1", "g4"])
    dense = one(2, 5, genes(1, 2), make=np.asarray)
    files = []
    for k, x in enumerate((a, b, dense)):
        files.append(tmp_path / f"{k}.h5ad")
        x.write_h5ad(files[-1])
    out = tmp_path / "o.h5ad"
    with pytest.raises(scw.DataError, match=r"1\.h5ad.*'g1' is there twice"):
        scw.io.concat_on_disk(files[:2], out)
    with pytest.raises(NotImplementedError, match=r"is sparse in .* and dense in"):
        scw.io.concat_on_disk([files[0], files[2]], out)
    with pytest.raises(ValueError, match="1 keys for 2 inputs"):
        scw.io.concat_on_disk(files[:2], out, keys=["a"])
    with pytest.raises(ValueError, match="there are no inputs"):
        scw.io.concat_on_disk([], out)
    with pytest.raises(ValueError, match="join must be"):
        scw.io.concat_on_disk(files, out, join="left")  # type: ignore[arg-type]
    assert not out.exists()


@pytest.mark.skipif(not PROGRAM.exists(), reason="the program is not built")
def test_program(tmp_path: Path) -> None:
    for k in (0, 1):
        one(k, 10, genes(1, 2, 3 + k)).write_h5ad(tmp_path / f"{k}.h5ad")

    def run(*args: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([PROGRAM, *args], cwd=tmp_path, capture_output=True, text=True, check=False)

    done = run("concat", "o.h5ad", "0.h5ad", "1.h5ad", "--join", "outer", "--batch-key", "from", "--keys", "a,b")
    assert done.returncode == 0, done.stderr
    got = ad.read_h5ad(tmp_path / "o.h5ad")
    assert got.shape == (20, 4) and list(got.obs["from"].cat.categories) == ["a", "b"]
    assert run("convert", "o.h5ad", "p.h5ad", "--compression", "none").returncode == 0
    check_same_adata(got, ad.read_h5ad(tmp_path / "p.h5ad"))
    again = run("convert", "o.h5ad", "p.h5ad")
    assert again.returncode == 2 and "--force" in again.stderr
    assert run("convert", "o.h5ad", "p.h5ad", "--force", "--level", "6", "--chunk", "64KiB").returncode == 0
    assert run("convert", "nothing.h5ad", "q.h5ad").returncode == 3
    assert run("convert", "o.h5ad", "p.zarr", "--zarr-format", "3", "--compression", "zstd").returncode == 0
    done = run("concat", "q.zarr", "0.h5ad", "1.h5ad", "--join", "outer", "--batch-key", "from", "--keys", "a,b")
    assert done.returncode == 0 and "q.zarr" in done.stdout, done.stderr
    check_same_in_any_order(got, ad.read_zarr(tmp_path / "p.zarr"))
    check_same_in_any_order(got, ad.read_zarr(tmp_path / "q.zarr"))
    again = run("convert", "o.h5ad", "p.zarr")
    assert again.returncode == 2 and "--force" in again.stderr
    assert run("convert", "p.zarr", "q.zarr", "--force").returncode == 0
    assert run("convert", "o.h5ad", "r.zarr", "--compression", "lzf").returncode == 2
    assert not any(p.name.startswith(".") or p.name == "r.zarr" for p in tmp_path.iterdir())


@pytest.mark.skipif(not PROGRAM.exists(), reason="the program is not built")
def test_memory_does_not_grow_with_the_values(tmp_path: Path) -> None:
    """Four times the cells: what is added is far below what the matrix grows by, 144 MB."""
    few, many = (peaks_of_the_program(tmp_path, n) for n in (60_000, 240_000))
    for command, peak in many.items():
        allowed = 100e6 if command.startswith("concat") else 70e6
        assert peak - few[command] < allowed, (command, few, many)


def peaks_of_the_program(folder: Path, n: int) -> dict[str, int]:
    r = np.random.default_rng(0)
    per_row = 100
    indices = np.sort(r.integers(0, 20, (n, per_row), dtype=np.int32) + np.arange(per_row, dtype=np.int32) * 20)
    x = sp.csr_matrix((np.ones(n * per_row, np.float32), indices.ravel(), np.arange(n + 1) * per_row), shape=(n, 2000))
    scw.write_h5ad(ad.AnnData(x), folder / "a.h5ad")
    scw.write_h5ad(ad.AnnData(x.tocsc()), folder / "by_gene.h5ad")
    out = {}
    for command in (
        "convert a.h5ad b.h5ad",
        "convert a.h5ad b.zarr",
        "convert b.zarr c.zarr --shards",
        "convert c.zarr b.h5ad",
        "concat b.h5ad a.h5ad a.h5ad",
        "concat d.zarr a.h5ad b.zarr",
        "convert a.h5ad by_cell/ --compression none",
        "convert by_cell/ b.h5ad",
        "concat b.h5ad by_cell/ a.h5ad",
        "convert by_gene.h5ad by_gene/ --compression none",
        "convert by_gene/ b.h5ad",
    ):
        done = subprocess.run(
            [PROGRAM, *command.split(), "--force", "--json"], cwd=folder, capture_output=True, text=True, check=True
        )
        result = [e for e in map(json.loads, done.stdout.splitlines()) if "peak_resident_bytes" in e]
        out[command] = result[-1]["peak_resident_bytes"]
    return out


def test_records_without_a_form_in_the_other_format(tmp_path: Path, caplog: Any) -> None:
    a = ad.AnnData(np.ones((2, 2), "f4"))
    a.uns["array field"] = np.zeros(3, dtype=[("a", "i4", (2,)), ("s", "U4")])
    a.uns["unsigned"] = np.array([(2**63, 1.5)], dtype=[("u", "u8"), ("f", "f4")])
    a.uns["plain"] = np.array([(1, 2.5)], dtype=[("a", "i4"), ("b", "f4")])
    a.uns["nested"] = {"array field": a.uns["array field"], "n": 1}
    a.write_h5ad(tmp_path / "a.h5ad")
    with caplog.at_level("WARNING", "scwarp"):
        scw.io.convert(tmp_path / "a.h5ad", tmp_path / "a.zarr")
    for name in ("array field", "unsigned", "nested/array field"):
        assert f"'/uns/{name}' has no form in Zarr version 2 and is left out" in caplog.text
    got = ad.read_zarr(tmp_path / "a.zarr")
    assert got.uns["nested"] == {"n": 1}
    assert got.uns["plain"].tolist() == [(1, 2.5)]
    assert set(got.uns) == {"plain", "nested"}
    scw.io.convert(tmp_path / "a.h5ad", tmp_path / "b.h5ad")
    assert ad.read_h5ad(tmp_path / "b.h5ad").uns["array field"].dtype["a"].shape == (2,)
