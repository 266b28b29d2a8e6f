"""Files that mean harm, or that only look odd: refused by name, or read right, in time and memory that they explain."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from same_anndata import copy

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
