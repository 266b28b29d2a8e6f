"""write_10x_h5 through scanpy's reader and our own."""

from __future__ import annotations

import os
from pathlib import Path

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
import scipy.sparse as sp
from conftest import dense

import scwarp as scw

H5 = [
    "reference_tables/scanpy/tests/_data/10x_data/1.2.0/filtered_gene_bc_matrices_h5.h5",
    "reference_tables/scanpy/tests/_data/10x_data/3.0.0/filtered_feature_bc_matrix.h5",
    "reference_tables/scanpy/tests/_data/visium_data/1.0.0/filtered_feature_bc_matrix.h5",
    "reference_tables/scanpy/tests/_data/visium_data/2.1.0/raw_probe_bc_matrix.h5",
    "pbmc_citeseq_1k_10x_h5/1K_pbmc_citeseq.h5",
]


def counts(n: int, m: int, seed: int = 0) -> sp.csr_matrix:
    random = np.random.default_rng(seed)
    x = sp.random(n, m, 0.2, "csr", np.float32, random, lambda k: random.integers(1, 90, k).astype(np.float32))
    kept = np.ones((n, 1), np.float32)
    kept[[0, n // 2]] = 0  # empty cells
    x = x.multiply(kept).tocsr()
    x.eliminate_zeros()
    return x


def annotated(x) -> ad.AnnData:
    a = ad.AnnData(x)
    a.obs_names = [f"CELL{i}-1" for i in range(a.n_obs)]
    a.var_names = [f"gene{j}" for j in range(a.n_vars)]
    a.var["gene_ids"] = [f"ENSG{j:011d}" for j in range(a.n_vars)]
    a.var["feature_types"] = ["Antibody Capture" if j % 7 == 6 else "Gene Expression" for j in range(a.n_vars)]
    a.var["genome"] = "GRCh38"
    return a


def same(a: ad.AnnData, b: ad.AnnData) -> None:
    """Equal as far as 10x HDF5 goes."""
    np.testing.assert_array_equal(dense(a.X).astype(float), dense(b.X).astype(float))
    assert list(a.obs_names) == list(b.obs_names)
    assert list(a.var_names) == list(b.var_names)
    assert set(a.var) == set(b.var)
    for c in a.var:
        assert [str(v) for v in a.var[c]] == [str(v) for v in b.var[c]], c


FORMS = {
    "csr": lambda x: x,
    "csc": lambda x: x.tocsc(),
    "dense": lambda x: x.toarray(),
    "fortran": lambda x: np.asfortranarray(x.toarray()),
    "bool": lambda x: x.astype(bool),
    "int64": lambda x: x.astype(np.int64),
    "large": lambda x: x.astype(np.int64) * 12_345_677,
    "large int32": lambda x: (x * 200_000).astype(np.int32) + (x != 0).astype(np.int32),
    "large double": lambda x: x.astype(np.float64).tocsc() * 12_345_677,
    "real": lambda x: x * np.float32(0.3),
    "real double": lambda x: x.astype(np.float64) * 0.1,
    "dense real": lambda x: x.toarray() / 3,
}


@pytest.mark.parametrize("form", FORMS)
def test_written_file_equals_through_scanpy(tmp_path: Path, form: str) -> None:
    a = annotated(FORMS[form](counts(150, 60)))
    path = tmp_path / "a.h5"
    scw.write_10x_h5(a, path)
    scw.write_10x_h5(a, path)  # over what is there
    assert os.listdir(tmp_path) == ["a.h5"]
    b = sc.read_10x_h5(path, gex_only=False)
    same(b, a)
    same(scw.read_10x_h5(path, gex_only=False), b)
    same(scw.read_10x_h5(path), sc.read_10x_h5(path))
    same(scw.read_10x_h5(path, genome="GRCh38"), sc.read_10x_h5(path, genome="GRCh38"))
    if form not in ("large", "large int32", "large double", "real double"):
        assert b.X.dtype == np.float32
    masked = np.arange(a.n_obs) % 3 == 0
    np.testing.assert_array_equal(
        dense(scw.read_10x_h5(path, gex_only=False, obs_mask=masked).X).astype(float), dense(b.X)[masked].astype(float)
    )


def test_layout_of_the_file(tmp_path: Path) -> None:
    a = annotated(counts(500, 200))
    scw.write_10x_h5(a, tmp_path / "a.h5", compression_level=9, chunk_bytes=4096)
    with h5py.File(tmp_path / "a.h5") as f:
        assert f.attrs["software_version"] == f"scwarp {scw.__version__}"
        assert set(f) == {"matrix"}
        g = f["matrix"]
        assert {k: g[k].dtype for k in ("data", "indices", "indptr", "shape")} == {
            "data": np.int32,
            "indices": np.int64,
            "indptr": np.int64,
            "shape": np.int32,
        }
        assert list(g["shape"]) == [200, 500]
        assert g["data"].chunks == (1024,)
        assert g["data"].compression == "gzip"
        assert g["data"].shuffle
        assert g["barcodes"].dtype == "S9"
        np.testing.assert_array_equal(g["indptr"][()], a.X.indptr)
        assert set(g["features"]) == {"id", "name", "feature_type", "genome", "_all_tag_keys"}
        assert list(g["features/_all_tag_keys"]) == [b"genome"]
        assert all(g["features"][k].dtype.kind == "S" for k in g["features"])


@pytest.mark.parametrize("name", H5)
def test_files_of_cell_ranger_come_back(shared_data: Path, tmp_path: Path, name: str) -> None:
    a = scw.read_10x_h5(shared_data / name, gex_only=False)
    scw.write_10x_h5(a, tmp_path / "python.h5")
    scw.convert(shared_data / name, tmp_path / "convert.h5", gex_only=False)
    b = scw.read_10x_h5(tmp_path / "python.h5", gex_only=False)
    # Not byte for byte: convert keeps the order of a cell's entries, which Cell Ranger does not sort and reading does,
    # and makes names unique.
    unique = b.copy()
    unique.var_names_make_unique()
    same(scw.read_10x_h5(tmp_path / "convert.h5", gex_only=False), unique)
    assert b.X.dtype == np.float32
    assert set(b.var) - set(a.var) <= {"feature_types", "genome"}  # which version 2 does not have
    assert list(b.obs) == list(a.obs)
    for c in a.obs:
        assert list(a.obs[c]) == list(b.obs[c])
    same(ad.AnnData(b.X, b.obs, b.var[list(a.var)]), a)
    same(sc.read_10x_h5(tmp_path / "python.h5", gex_only=False), b)


def test_convert_there_and_back(tmp_path: Path) -> None:
    a = annotated(counts(80, 50))
    del a.var["genome"]
    a.layers["twice"] = a.X * 2
    a.write_h5ad(tmp_path / "a.h5ad", compression="gzip")
    scw.convert(tmp_path / "a.h5ad", tmp_path / "b.h5")
    same(sc.read_10x_h5(tmp_path / "b.h5", gex_only=False), scw.read_10x_h5(tmp_path / "b.h5", gex_only=False))
    scw.convert(tmp_path / "b.h5", tmp_path / "c.h5ad", gex_only=False)
    c = ad.read_h5ad(tmp_path / "c.h5ad")
    np.testing.assert_array_equal(dense(c.X), dense(a.X))
    assert list(c.var["gene_ids"]) == list(a.var["gene_ids"])
    scw.convert(tmp_path / "b.h5", f"{tmp_path}/folder/", gex_only=False)
    scw.convert(tmp_path / "folder", tmp_path / "d.h5", gex_only=False)
    assert (tmp_path / "d.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()
    scw.concat_on_disk([tmp_path / "b.h5", tmp_path / "a.h5ad"], tmp_path / "both.h5", index_unique="-")
    both = sc.read_10x_h5(tmp_path / "both.h5")
    kept = a.var["feature_types"] == "Gene Expression"  # what of b is put together
    np.testing.assert_array_equal(dense(both.X), np.vstack([dense(a.X)[:, kept]] * 2))
    with pytest.raises(ValueError, match="there already"):
        scw.convert(tmp_path / "a.h5ad", tmp_path / "b.h5")
    scw.convert(tmp_path / "a.h5ad", tmp_path / "b.h5", overwrite=True, compression=None)
    with h5py.File(tmp_path / "b.h5") as f:
        assert f["matrix/data"].compression is None
    with pytest.raises(ValueError, match="compression must be gzip or none for 10x HDF5"):
        scw.convert(tmp_path / "a.h5ad", tmp_path / "e.h5", compression="zstd")


def test_warns_of_what_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    a = annotated(counts(20, 10))
    a.obs["batch"] = "x"
    a.obsm["X_pca"] = np.zeros((20, 2))
    a.uns["n"] = 1
    a.write_h5ad(tmp_path / "a.h5ad")
    with caplog.at_level("WARNING", "scwarp"):
        scw.convert(tmp_path / "a.h5ad", tmp_path / "a.h5")
    assert "10x HDF5 has no place for it: obs['batch'], obsm['X_pca'], uns['n']" in caplog.text


def test_names(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    a = annotated(counts(4, 3))
    a.obs_names = ["é", "日本", "c", ""]
    a.var["gene_symbols"] = ["α", "b", "b"]
    with caplog.at_level("WARNING", "scwarp"):
        scw.write_10x_h5(a, tmp_path / "a.h5")
    assert "not ASCII" in caplog.text
    b = scw.read_10x_h5(tmp_path / "a.h5", gex_only=False)
    assert list(b.obs_names) == list(a.obs_names)
    assert list(b.var_names) == ["α", "b", "b"]
    assert list(b.var["gene_ids"]) == list(a.var_names)  # where there are symbols the names are the ids
    with h5py.File(tmp_path / "a.h5") as f:
        assert h5py.check_string_dtype(f["matrix/barcodes"].dtype).encoding == "utf-8"
    a.obs_names = ["a\0b", "b", "c", "d"]
    with pytest.raises(ValueError, match="write_10x_h5: the name of cell 0 has a zero byte"):
        scw.write_10x_h5(a, tmp_path / "b.h5")


def test_columns_of_text_and_booleans_are_tags(tmp_path: Path) -> None:
    a = annotated(counts(6, 5))
    a.var["read"] = pd.Categorical(["R1", "R2", "R1", "R1", "R2"])
    a.var["kept"] = [True, False, True, True, False]
    a.var["score"] = np.arange(5.0)
    a.var["partly"] = ["x", None, "y", "z", "x"]
    scw.write_10x_h5(a, tmp_path / "a.h5")
    del a.var["score"], a.var["partly"]
    same(sc.read_10x_h5(tmp_path / "a.h5", gex_only=False), a)
    same(scw.read_10x_h5(tmp_path / "a.h5", gex_only=False), a)


@pytest.mark.parametrize("shape", [(0, 5), (5, 0), (0, 0), (1, 1)])
def test_empty(tmp_path: Path, shape: tuple[int, int]) -> None:
    a = annotated(sp.csr_matrix(shape, dtype=np.float32))
    scw.write_10x_h5(a, tmp_path / "a.h5")
    b = scw.read_10x_h5(tmp_path / "a.h5", gex_only=False)
    assert b.shape == shape
    if shape[0] > 0 and shape[1] > 0:
        same(sc.read_10x_h5(tmp_path / "a.h5", gex_only=False), b)
    with h5py.File(tmp_path / "a.h5") as f:
        assert list(f["matrix/indptr"]) == [0] * (shape[0] + 1)


def test_failures_leave_what_was_there(tmp_path: Path) -> None:
    a = annotated(counts(30, 20))
    (tmp_path / "a.h5").write_text("old")
    with pytest.raises(TypeError, match="write_10x_h5: X must be"):
        scw.write_10x_h5(ad.AnnData(obs=pd.DataFrame(index=["a"])), tmp_path / "a.h5")
    for bad in ({"compression_level": 13}, {"compression_level": -1}, {"chunk_bytes": 1}, {"chunk_bytes": 0}):
        with pytest.raises(ValueError, match="write_10x_h5: c"):
            scw.write_10x_h5(a, tmp_path / "a.h5", **bad)
    assert (tmp_path / "a.h5").read_text() == "old"
    with pytest.raises(OSError, match="write_10x_h5: "):
        scw.write_10x_h5(a, tmp_path / "absent" / "a.h5")
    locked = tmp_path / "locked"
    locked.mkdir()
    (locked / "a.h5").write_text("old")
    locked.chmod(0o500)
    try:
        if not os.access(locked, os.W_OK):
            with pytest.raises(OSError, match=r"write_10x_h5: .*locked"):
                scw.write_10x_h5(a, locked / "a.h5")
            assert os.listdir(locked) == ["a.h5"]
            assert (locked / "a.h5").read_text() == "old"
    finally:
        locked.chmod(0o700)
    assert sorted(os.listdir(tmp_path)) == ["a.h5", "locked"]
