from __future__ import annotations

import gzip
import shutil

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
import scipy.io
from conftest import dense, simulated_counts

import scwarp as scw


@pytest.fixture
def tenx(shared_data):
    return shared_data / "reference_tables" / "scanpy" / "tests" / "_data" / "10x_data"


def same(a: ad.AnnData, b: ad.AnnData) -> None:
    assert list(a.obs_names) == list(b.obs_names)
    assert list(a.var_names) == list(b.var_names)
    assert a.X.dtype == b.X.dtype == np.float32
    np.testing.assert_array_equal(dense(a.X), dense(b.X))
    for column in b.var.columns:
        assert list(a.var[column]) == list(b.var[column].astype(str)), (
            column
        )  # scanpy keeps whole-number ids as numbers


@pytest.mark.parametrize(
    ("name", "kwargs"),
    [
        ("1.2.0/filtered_gene_bc_matrices_h5.h5", {}),
        ("1.2.0/multiple_genomes.h5", {"genome": "hg19_chr21"}),
        ("3.0.0/filtered_feature_bc_matrix.h5", {}),
        ("3.0.0/filtered_feature_bc_matrix.h5", {"genome": "GRCh38_chr21", "gex_only": False}),
    ],
)
def test_h5_equals_scanpy(tenx, name, kwargs):
    same(scw.read_10x_h5(tenx / name, **kwargs), sc.read_10x_h5(tenx / name, **kwargs))


@pytest.mark.parametrize("gex_only", [True, False])
def test_citeseq_equals_scanpy(shared_data, gex_only):
    path = shared_data / "pbmc_citeseq_1k_10x_h5" / "1K_pbmc_citeseq.h5"
    same(scw.read_10x_h5(path, gex_only=gex_only), sc.read_10x_h5(path, gex_only=gex_only))


@pytest.mark.parametrize(
    "name", ["1.2.0/filtered_gene_bc_matrices/hg19_chr21", "3.0.0/filtered_feature_bc_matrix", "int-ids"]
)
@pytest.mark.parametrize("var_names", ["gene_symbols", "gene_ids"])
def test_mtx_equals_scanpy(tenx, tmp_path, name, var_names):
    folder = tenx / name
    if name == "int-ids":  # scanpy wants version 3 files compressed
        for file in folder.iterdir():
            with open(file, "rb") as f, gzip.open(tmp_path / (file.name + ".gz"), "wb") as g:
                shutil.copyfileobj(f, g)
        same(scw.read_10x_mtx(folder, var_names=var_names), sc.read_10x_mtx(tmp_path, var_names=var_names, cache=False))
        folder = tmp_path
    same(scw.read_10x_mtx(folder, var_names=var_names), sc.read_10x_mtx(folder, var_names=var_names, cache=False))


def test_several_genomes_must_be_chosen(tenx):
    with pytest.raises(ValueError, match=r"several genomes.*another_genome, hg19_chr21"):
        scw.read_10x_h5(tenx / "1.2.0" / "multiple_genomes.h5")
    with pytest.raises(ValueError, match="no genome 'mm10'"):
        scw.read_10x_h5(tenx / "3.0.0" / "filtered_feature_bc_matrix.h5", genome="mm10")


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".csv.gz"])
@pytest.mark.parametrize("rows", ["cells", "genes"])
def test_tables(tmp_path, suffix, rows):
    x = simulated_counts(30, 20)
    frame = pd.DataFrame(dense(x), index=[f"c{i}" for i in range(30)], columns=[f"g{j}" for j in range(20)])
    path = tmp_path / f"t{suffix}"
    (frame if rows == "cells" else frame.T).to_csv(path, sep="\t" if "tsv" in suffix else ",")
    a = scw.read_csv(path, rows=rows)
    assert list(a.obs_names) == list(frame.index)
    assert list(a.var_names) == list(frame.columns)
    np.testing.assert_array_equal(dense(a.X), dense(x))


def test_written_mtx_comes_back(tmp_path):
    x = simulated_counts(25, 15)
    scipy.io.mmwrite(tmp_path / "matrix.mtx", x.T.astype(np.int64))
    (tmp_path / "barcodes.tsv").write_text("".join(f"c{i}\n" for i in range(25)))
    (tmp_path / "genes.tsv").write_text("".join(f"id{j}\tg{j}\n" for j in range(15)))
    a = scw.read_10x_mtx(tmp_path)
    np.testing.assert_array_equal(dense(a.X), dense(x))
    assert list(a.var["gene_ids"]) == [f"id{j}" for j in range(15)]


def test_errors(tmp_path):
    with pytest.raises(OSError, match=r"no matrix.mtx or matrix.mtx.gz"):
        scw.read_10x_mtx(tmp_path)
    with pytest.raises(OSError, match="cannot be opened"):
        scw.read_csv(tmp_path / "absent.csv")
    (tmp_path / "cut.csv.gz").write_bytes(gzip.compress(b",a\n" + b"c,1\n" * 100000)[:200])
    with pytest.raises(OSError, match=r"cut\.csv\.gz.*ends too early"):
        scw.read_csv(tmp_path / "cut.csv.gz")
    (tmp_path / "not.h5").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"not\.h5"):
        scw.read_10x_h5(tmp_path / "not.h5")


def with_features(n: int, m: int) -> ad.AnnData:
    a = ad.AnnData(simulated_counts(n, m))
    a.obs_names = [f"CELL{i}-1" for i in range(n)]
    a.var_names = [f"gene{j}" for j in range(m)]
    a.var["gene_ids"] = [f"ENSG{j:011d}" for j in range(m)]
    a.var["feature_types"] = "Gene Expression"
    return a


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("form", ["csr", "csc", "dense", "int", "real"])
def test_written_folder_equals_through_scanpy(tmp_path, version, form):
    a = with_features(60, 40)
    x = a.X.tocsr().astype(np.float32)
    a.X = {"csr": x, "csc": x.tocsc(), "dense": x.toarray(), "int": x.astype(np.int64), "real": x * np.float32(0.3)}[
        form
    ]
    scw.write_10x_mtx(a, tmp_path / "out", version=version)
    scw.write_10x_mtx(a, tmp_path / "out", version=version)  # over what is there
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
    b = sc.read_10x_mtx(tmp_path / "out", cache=False)
    same(scw.read_10x_mtx(tmp_path / "out"), b)
    np.testing.assert_array_equal(dense(b.X), dense(a.X).astype(np.float32))
    assert list(b.obs_names) == list(a.obs_names)
    assert list(b.var_names) == list(a.var_names)
    assert list(b.var["gene_ids"]) == list(a.var["gene_ids"])


def test_convert_to_a_folder_and_back(tmp_path):
    a = with_features(50, 30)
    a.layers["twice"] = a.X * 2
    a.write_h5ad(tmp_path / "a.h5ad", compression="gzip")
    scw.io.convert(tmp_path / "a.h5ad", f"{tmp_path}/folder/")
    same(sc.read_10x_mtx(tmp_path / "folder", cache=False), scw.read_10x_mtx(tmp_path / "folder"))
    scw.io.convert(tmp_path / "folder", tmp_path / "b.h5ad")
    b = scw.read_h5ad(tmp_path / "b.h5ad")
    np.testing.assert_array_equal(dense(b.X), dense(a.X))
    with pytest.raises(ValueError, match="there already"):
        scw.io.convert(tmp_path / "a.h5ad", f"{tmp_path}/folder/")
    scw.io.convert(tmp_path / "a.h5ad", f"{tmp_path}/folder/", compression=None, overwrite=True)
    assert sorted(p.name for p in (tmp_path / "folder").iterdir()) == ["barcodes.tsv", "genes.tsv", "matrix.mtx"]
    with pytest.raises(ValueError, match="compression must be gzip or none for a 10x folder"):
        scw.io.convert(tmp_path / "a.h5ad", f"{tmp_path}/other/", compression="zstd")
    with pytest.raises(ValueError, match="no known format"):
        scw.io.convert(tmp_path / "a.h5ad", tmp_path / "other")


def test_folders_with_other_files_stay(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("x")
    with pytest.raises(OSError, match=r"holds 'notes\.txt'"):
        scw.write_10x_mtx(with_features(3, 4), tmp_path / "mine")
    with pytest.raises(TypeError, match="X must be"):
        scw.write_10x_mtx(ad.AnnData(obs=pd.DataFrame(index=["a"])), tmp_path / "out")
    assert (tmp_path / "mine" / "notes.txt").exists()


@pytest.mark.parametrize(
    ("name", "kwargs"),
    [
        ("1.2.0/multiple_genomes.h5", {"genome": "hg19_chr21"}),
        ("3.0.0/filtered_feature_bc_matrix.h5", {}),
        ("3.0.0/filtered_feature_bc_matrix.h5", {"gex_only": False}),
    ],
)
def test_selected_cells_and_features_of_h5(tenx, name, kwargs):
    whole = scw.read(tenx / name, **kwargs)
    random = np.random.default_rng(0)
    obs, var = random.random(whole.n_obs) < 0.3, random.random(whole.n_vars) < 0.4
    for masks in ({"obs_mask": obs}, {"var_mask": var}, {"obs_mask": obs, "var_mask": var}):
        some = scw.read(tenx / name, **kwargs, **masks)
        expected = whole[masks.get("obs_mask", slice(None)), masks.get("var_mask", slice(None))]
        assert list(some.obs_names) == list(expected.obs_names)
        assert list(some.var_names) == list(expected.var_names)
        assert some.X.dtype == expected.X.dtype
        np.testing.assert_array_equal(dense(some.X), dense(expected.X))
        assert list(some.var["gene_ids"]) == list(expected.var["gene_ids"])
    with pytest.raises(ValueError, match=f"obs_mask has 3 entries \\(expected {whole.n_obs}\\)"):
        scw.read_10x_h5(tenx / name, **kwargs, obs_mask=[True, False, True])
    with pytest.raises(TypeError, match="var_mask must be one boolean each"):
        scw.read_10x_h5(tenx / name, **kwargs, var_mask=[1, 2])


def test_devices(tenx):
    h5, folder = tenx / "3.0.0" / "filtered_feature_bc_matrix.h5", tenx / "3.0.0" / "filtered_feature_bc_matrix"
    for path in (h5, folder):
        host = scw.read(path)
        assert (scw.read(path, device="cpu").X != host.X).nnz == 0
        if scw._core.unavailable_reason("cuda"):
            with pytest.raises(scw.BackendUnavailable, match="device='cuda' cannot be used"):
                scw.read(path, device="cuda")
        else:
            import cupy

            x = scw.read(path, device="cuda").X
            assert isinstance(x.data, cupy.ndarray)
            assert (x.get() != host.X).nnz == 0
