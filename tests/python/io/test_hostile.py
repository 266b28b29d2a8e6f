"""Files that mean harm, or that only look odd: refused by name, or read right, in time and memory that they explain."""

from __future__ import annotations

import os
import struct
import sys
from pathlib import Path

import anndata as ad
import h5py
import numpy as np
import pytest
from same_anndata import copy

import scwarp as scw
from scwarp import _core
from scwarp._context import make_context

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "fuzz"))
import make_corpus


def test_newer_lists_of_chunks(tmp_path: Path) -> None:
    """One chunk, a fixed array with and without pages, an extensible array with all its blocks, a tree."""
    with h5py.File(tmp_path / "a.h5ad", "w", libver=("v110", "v110")) as f:
        make_corpus.fixed_names(f)
        g = f.create_group("uns")
        for filters in (None, "gzip"):
            for n in (2, 3, 100, 9000):
                a, c = np.arange(n), 2 if n < 1000 else 4
                for name, kwargs in {
                    "single": {"chunks": (n,)},
                    "fixed": {"chunks": (c,)},
                    "growing": {"chunks": (c,), "maxshape": (3 * n + 1,)},
                    "extensible": {"chunks": (c,), "maxshape": (None,)},
                }.items():
                    g.create_dataset(f"{name} {n} {filters}", data=a, compression=filters, **kwargs)
                b = a.reshape(-1, 1)
                g.create_dataset(
                    f"tree {n} {filters}", data=b, chunks=(c, 1), maxshape=(None, None), compression=filters
                )
    copy(tmp_path / "a.h5ad", tmp_path / "b.h5ad")
    with h5py.File(tmp_path / "a.h5ad") as a, h5py.File(tmp_path / "b.h5ad") as b:
        assert set(a["uns"]) == set(b["uns"])
        for k in a["uns"]:
            np.testing.assert_array_equal(a["uns"][k][()], b["uns"][k][()], err_msg=k)


@pytest.mark.parametrize("track_order", [False, True])
def test_many_members_and_attributes(tmp_path: Path, track_order: bool) -> None:
    """Heaps of several blocks and trees of several levels."""
    with h5py.File(tmp_path / "a.h5ad", "w", libver=("v110", "v110"), track_order=track_order) as f:
        make_corpus.fixed_names(f)
        g = f.create_group("uns")
        for i in range(900):
            g[f"name{'x' * (i % 50)}{i}"] = i
        for i in range(200):
            f["obs"].attrs[f"a{'y' * (i % 60)}{i}"] = "text" if i % 2 else np.arange(i % 30)
    copy(tmp_path / "a.h5ad", tmp_path / "b.h5ad")
    with h5py.File(tmp_path / "b.h5ad") as f:
        assert len(f["uns"]) == 900 and f["uns/name0"][()] == 0


def test_a_chunk_larger_than_the_file_explains(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5ad", "w") as f:
        make_corpus.fixed_names(f)
        f.create_group("uns").create_dataset("bomb", (1,), "f4", chunks=(2**29,), maxshape=(None,))
    with pytest.raises(ValueError, match=r"/uns/bomb.*chunks of 2147483648 bytes"):
        copy(tmp_path / "a.h5ad", tmp_path / "b.h5ad")


def test_not_a_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path, Path("/dev/zero")):
        with pytest.raises(OSError, match="not a regular file"):
            copy(path, tmp_path / "b.h5ad")


@pytest.mark.parametrize("libver", ["earliest", "v110"])
def test_what_is_carried_over_is_as_it_was(tmp_path: Path, libver: str, caplog: pytest.LogCaptureFixture) -> None:
    """Layouts, filters, types, links and attributes of elements that nobody understands."""
    record = np.dtype([("n", "u8"), ("text", make_corpus.TEXT), ("inner", [("a", "f4"), ("b", "i2", (2,))])])
    a = np.arange(7 * 5 * 3, dtype=np.int16).reshape(7, 5, 3)
    with h5py.File(tmp_path / "a.h5ad", "w", libver=(libver, "v110"), track_order=True) as f:
        make_corpus.fixed_names(f)
        g = f.create_group("mystery", track_order=True)
        g.attrs["encoding-type"] = "unheard of"
        g.attrs["é"] = np.array(["x", "ÿ"], dtype=make_corpus.TEXT)
        g.attrs["record"] = np.array([(1, "text", (2, (3, 4)))], dtype=record)
        g["z"], g["scalar"] = np.float64(2.5), "text"
        g.create_dataset("chunks", data=a, chunks=(2, 3, 2), compression="gzip", shuffle=True, fletcher32=True)
        g.create_dataset("gaps", (7, 5), ">i4", chunks=(2, 2), maxshape=(None, None), fillvalue=9)[3:5] = 1
        g.create_dataset("packed", data=a[..., 0], chunks=(3, 5), scaleoffset=0)
        g.create_dataset("texts", data=np.array(["a", "", "ç"], dtype=make_corpus.TEXT), chunks=(2,), compression="lzf")
        g["records"] = np.array([(2**63, "a", (0.5, (1, 2))), (1, "", (1, (3, 4)))], dtype=record)
        g["sequences"] = np.array([np.arange(3), np.arange(0)], dtype=object).astype(h5py.vlen_dtype(np.int16))
        g["choice"] = np.array([0, 1], dtype=h5py.enum_dtype({"no": 0, "yes": 1}, "i4"))
        g["type"] = np.dtype("f4")
        g["of type"] = np.ones(2, "f4")
        g["same"] = g["chunks"]
        g["inner/up"] = g
        g["soft"] = h5py.SoftLink("/mystery/chunks")
        g["outside"] = h5py.ExternalLink("other.h5", "/x")
        g["reference"] = g["chunks"].ref
        g["texts"].attrs["reference"] = g.ref
        g["empty"] = h5py.Empty("f4")
    with caplog.at_level("WARNING", "scwarp"):
        copy(tmp_path / "a.h5ad", tmp_path / "b.h5ad")
    with h5py.File(tmp_path / "a.h5ad") as f, h5py.File(tmp_path / "b.h5ad") as h:
        old, new = f["mystery"], h["mystery"]
        assert [k for k in old if k not in ("outside", "reference")] == list(new)
        assert set(old.attrs) == set(new.attrs)
        for k in ("é", "record"):
            np.testing.assert_array_equal(old.attrs[k], new.attrs[k])
        for k in new:
            if not isinstance(old[k], h5py.Dataset):
                continue
            x, y = old[k], new[k]
            assert (x.dtype, x.shape, x.chunks, x.maxshape) == (y.dtype, y.shape, y.chunks, y.maxshape), k
            assert (x._filters, x.fillvalue if k == "gaps" else 0) == (y._filters, y.fillvalue if k == "gaps" else 0)
            if k == "sequences":
                assert all(np.array_equal(p, q) for p, q in zip(x, y, strict=True))
            elif k != "empty":
                np.testing.assert_array_equal(x[()], y[()], err_msg=k)
        assert (
            new["same"].id == new["chunks"].id
            or h5py.h5o.get_info(new["same"].id).addr == h5py.h5o.get_info(new["chunks"].id).addr
        )
        assert new["inner/up/z"][()] == 2.5
        assert new.get("soft", getlink=True).path == "/mystery/chunks"
        assert isinstance(new["type"], h5py.Datatype)
    for text in ("/mystery/outside': a link out of the file", "/mystery/reference' refers", "attribute 'reference'"):
        assert text in caplog.text


def test_texts_that_cannot_be_checked_are_not_copied(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5ad", "w") as f:
        make_corpus.fixed_names(f)
        f["mystery/texts"] = np.array([[["a"]]], dtype=make_corpus.TEXT)
        f["mystery"].create_dataset("chunks", data=np.array([[["a"]]], dtype=make_corpus.TEXT), chunks=(1, 1, 1))
    with pytest.raises(NotImplementedError, match=r"/mystery/chunks.*cannot be copied"):
        copy(tmp_path / "a.h5ad", tmp_path / "b.h5ad")
    assert not (tmp_path / "b.h5ad").exists()


@pytest.mark.parametrize("where", ["attribute of records", "fill value"])
def test_references_to_a_heap_are_checked_wherever_they_are(tmp_path: Path, where: str) -> None:
    """The library would copy as much as the heap has into as much room as the reference says."""
    path, text = tmp_path / "a.h5ad", b"sixteen letters!"
    with h5py.File(path, "w") as f:
        make_corpus.fixed_names(f)
        d = f.create_group("uns").create_dataset("d", data=[1])
        if where == "attribute of records":
            d.attrs["a"] = np.array([(1, text.decode())], dtype=[("n", "i4"), ("t", make_corpus.TEXT)])
        else:
            f["uns"].create_dataset("texts", (3,), make_corpus.TEXT, fillvalue=text)
    content = path.read_bytes()
    copy(path, tmp_path / "b.h5ad")
    reference = struct.pack("<IQ", len(text), content.rindex(b"GCOL", 0, content.index(text)))
    assert content.count(reference) >= 1
    for length in (1, 1 << 20):
        path.write_bytes(content.replace(reference, struct.pack("<I", length) + reference[4:]))
        with pytest.raises(ValueError, match="heap disagree"):
            copy(path, tmp_path / "c.h5ad")


def through(folder: Path, group: str) -> dict[str, np.ndarray]:
    """The arrays of a group after our reader and writer."""
    copy(folder / "a.h5ad", folder / "b.h5ad")
    with h5py.File(folder / "b.h5ad") as f:
        return {name: d[()] for name, d in f[group].items()}


@pytest.mark.parametrize("dtype", ["i1", "u2", ">i4", "i8", "u8", "f4", ">f8"])
@pytest.mark.parametrize("fill", [None, 3])
def test_scale_and_offset(tmp_path: Path, dtype: str, fill: int | None) -> None:
    """The library's own filter, undone by us."""
    rng = np.random.default_rng(0)
    t = np.dtype(dtype)
    a = rng.integers(3, 100, (37, 11)).astype(t) if t.kind != "f" else (rng.normal(0, 50, (37, 11)).round(3)).astype(t)
    a[5:9] = 3
    whole = {"u8": [0, 2**64 - 1], "i8": [-(2**63), 2**63 - 1], "i1": [-128, 127]}.get(dtype, [1, 2])
    how = {"scaleoffset": 3 if t.kind == "f" else 0, "fillvalue": fill}
    arrays = {"a": a, "same": np.full((9, 3), 3, t), "whole": np.array(whole, t).reshape(2, 1)}
    with h5py.File(tmp_path / "a.h5ad", "w") as f:
        make_corpus.fixed_names(f)
        g = f.create_group("uns")
        for name, x in arrays.items():
            g.create_dataset(name, data=x, chunks=(min(8, len(x)), x.shape[1]), **how)
        expected = {name: d[()] for name, d in g.items()}
    for name, x in through(tmp_path, "uns").items():
        tolerance = 4 * np.finfo(t).eps if t.kind == "f" else 0
        np.testing.assert_allclose(x, expected[name], rtol=tolerance, err_msg=name)


def test_a_chunk_of_scale_and_offset_that_is_too_short(tmp_path: Path) -> None:
    path = tmp_path / "a.h5ad"
    with h5py.File(path, "w") as f:
        make_corpus.fixed_names(f)
        d = f.create_group("uns").create_dataset("d", data=np.arange(1000), chunks=(1000,), scaleoffset=0)
        _, packed = d.id.read_direct_chunk((0,))
    content = path.read_bytes()
    path.write_bytes(content.replace(packed[:21], struct.pack("<I", 63) + packed[4:21]))
    with pytest.raises(ValueError, match=r"uns/d.*damaged"):
        copy(path, tmp_path / "b.h5ad")


@pytest.mark.parametrize("dtype", ["f4", "f2", ">i2", "u1"])
def test_chunks_of_many_dimensions(tmp_path: Path, dtype: str) -> None:
    a = np.random.default_rng(0).normal(0, 9, (6, 5, 4, 3)).astype(dtype)
    with h5py.File(tmp_path / "a.h5ad", "w") as f:
        make_corpus.fixed_names(f)
        g = f.create_group("uns")
        g.create_dataset("four", data=a, chunks=(4, 2, 3, 2), compression="gzip", shuffle=True, fletcher32=True)
        g.create_dataset("gap", a.shape, dtype, chunks=(4, 2, 3, 2), fillvalue=7)[1:3, 1] = 1
        g.create_dataset("plain", data=a[..., 0], chunks=(1, 5, 4))
        expected = {name: d[()] for name, d in g.items()}
    for name, x in through(tmp_path, "uns").items():
        np.testing.assert_array_equal(x, expected[name], err_msg=name)


def test_packed_records(tmp_path: Path) -> None:
    record = np.zeros(500, dtype=[("i", ">i2"), ("x", "f2"), ("t", make_corpus.TEXT), ("s", "S3")])
    record["i"], record["x"] = np.arange(500), np.arange(500) / 4
    record["t"], record["s"] = "text", b"abc"
    with h5py.File(tmp_path / "a.h5ad", "w") as f:
        make_corpus.fixed_names(f)
        d = f.create_group("uns").create_dataset("r", data=record, chunks=(64,), compression="gzip", fletcher32=True)
        d.attrs.update({"encoding-type": "rec-array", "encoding-version": "0.2.0"})
    got = through(tmp_path, "uns")["r"]
    for name in ("i", "x"):
        np.testing.assert_array_equal(got[name], record[name])
    assert list(got["t"][:2]) == [b"text", b"text"]


def test_a_chunk_file_that_is_mostly_a_hole(tmp_path: Path) -> None:
    a = ad.AnnData(np.ones((5, 4), np.float32))
    scw.write_zarr(a, tmp_path / "a.zarr")
    os.truncate(tmp_path / "a.zarr/X/0.0", 1 << 40)
    with pytest.raises(ValueError, match=r"X/0.0' has 1099511627776 bytes \(expected at most"):
        _core.io.read_zarr_matrix(make_context(op="test"), str(tmp_path / "a.zarr"))
