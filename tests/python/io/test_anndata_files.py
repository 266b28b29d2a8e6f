"""Files as they come: what scwarp reads of them is what anndata (scanpy, for 10x) reads."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pytest
import scanpy as sc
from conftest import SHARED, dense
from same_anndata import check_same, check_same_adata, check_same_in_any_order, copy

import scwarp as scw

H5AD = sorted(str(p.relative_to(SHARED)) for p in (SHARED / "data").rglob("*.h5ad"))
TENX = sorted(str(p.relative_to(SHARED)) for p in (SHARED / "data").rglob("*.h5"))
# Written by the anndata releases 0.7 to 0.12: tools/test-anndata-versions makes them and names the folder.
RELEASES = sorted(str(p) for p in Path(os.environ.get("SCWARP_ANNDATA_FILES", "/nonexistent")).glob("*.h5ad"))


def plain_numbers(tree: Any) -> Any:
    if isinstance(tree, Mapping):
        return {key: plain_numbers(value) for key, value in tree.items()}
    return tree.item() if isinstance(tree, np.generic) else tree


def same_as_anndata(path: Path, tmp_path: Path) -> None:
    """Through both readers: Python's, and that of C++, whose result our writer hands back to anndata."""
    expected = ad.read_h5ad(path)
    got = scw.read_h5ad(path)
    check_same(expected.obs, got.obs, "obs")
    check_same_adata(expected, got)
    copy(path, tmp_path / "copy.h5ad")
    check_same_adata(expected, ad.read_h5ad(tmp_path / "copy.h5ad"))
    # There and back by streams. A number without an encoding (anndata 0.7) gets one, and anndata reads it as Python's.
    expected.uns = plain_numbers(expected.uns)
    scw.convert(path, tmp_path / "2.zarr")
    scw.convert(tmp_path / "2.zarr", tmp_path / "3.zarr", zarr_format=3, shards=True, compression="zstd")
    scw.convert(tmp_path / "3.zarr", tmp_path / "3.h5ad")
    check_same_in_any_order(expected, ad.read_zarr(tmp_path / "2.zarr"))
    check_same_in_any_order(expected, ad.read_zarr(tmp_path / "3.zarr"))
    check_same_in_any_order(expected, ad.read_h5ad(tmp_path / "3.h5ad"))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", H5AD or [None])
def test_real_h5ad(name: str | None, shared_data: Path, tmp_path: Path) -> None:
    assert name is not None, "there is a folder of real data and no h5ad file in it"
    same_as_anndata(shared_data.parent / name, tmp_path)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", TENX or [None])
def test_real_10x(name: str | None, shared_data: Path, tmp_path: Path) -> None:
    assert name is not None, "there is a folder of real data and no 10x HDF5 file in it"
    path = shared_data.parent / name
    kwargs = {"genome": "hg19_chr21"} if "multiple_genomes" in name else {}
    expected, got = sc.read_10x_h5(path, gex_only=False, **kwargs), scw.read_10x_h5(path, gex_only=False, **kwargs)
    assert list(expected.obs_names) == list(got.obs_names) and list(expected.var_names) == list(got.var_names)
    np.testing.assert_array_equal(dense(expected.X), dense(got.X))
    assert expected.X.nnz == got.X.nnz
    assert set(expected.var) == set(got.var) and set(expected.obs) == set(got.obs)
    for slot in ("obs", "var"):
        for column, values in getattr(expected, slot).items():
            assert list(values) == list(getattr(got, slot)[column]), column
    genome = kwargs.get("genome")
    scw.convert(path, tmp_path / "a.zarr", gex_only=False, genome=genome)
    scw.convert(path, tmp_path / "a.h5ad", gex_only=False, genome=genome)
    stored = ad.read_zarr(tmp_path / "a.zarr")
    check_same_in_any_order(ad.read_h5ad(tmp_path / "a.h5ad"), stored)
    np.testing.assert_array_equal(dense(expected.X), dense(stored.X))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("path", RELEASES or [None])
def test_anndata_releases(path: str | None, tmp_path: Path) -> None:
    if path is None:
        pytest.skip("files of other anndata releases: run tools/test-anndata-versions")
    same_as_anndata(Path(path), tmp_path)
