"""read: the format is found in the content, whatever the name says."""

from __future__ import annotations

import gzip
from pathlib import Path

import anndata as ad
import h5py
import numpy as np
import pytest
import scipy.io
import scipy.sparse as sp

import scwarp as scw

X = sp.random(30, 20, 0.3, "csr", dtype=np.float32, random_state=0)
X.data = np.ceil(X.data * 9)


def test_h5ad(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    ad.AnnData(X).write_h5ad(path)
    assert (scw.read(path).X != X).nnz == 0
    assert scw.read(path, obs_mask=[1, 2]).shape == (2, 20)


def test_10x_h5(tmp_path: Path) -> None:
    path = tmp_path / "a.h5ad"
    with h5py.File(path, "w") as f:
        g = f.create_group("matrix")
        g["barcodes"] = np.array([f"c{i}" for i in range(30)], "S")
        g["data"], g["indices"], g["indptr"] = X.data.astype(np.int32), X.indices, X.indptr.astype(np.int64)
        g["shape"] = np.array([20, 30])
        for k in ("id", "name", "genome"):
            g[f"features/{k}"] = np.array([f"{k}{j}" for j in range(20)], "S")
        g["features/feature_type"] = np.array(["Gene Expression"] * 20, "S")
    assert (scw.read(path).X != X).nnz == 0


def test_folder_and_table(tmp_path: Path) -> None:
    folder = tmp_path / "out.h5ad"
    folder.mkdir()
    scipy.io.mmwrite(folder / "matrix.mtx", X.T.astype(np.int64))
    (folder / "barcodes.tsv").write_text("".join(f"c{i}\n" for i in range(30)))
    (folder / "genes.tsv").write_text("".join(f"id{j}\tname{j}\n" for j in range(20)))
    np.testing.assert_array_equal(scw.read(folder).X.toarray(), X.toarray())
    lines = [",".join(["", *(f"g{j}" for j in range(20))])]
    lines += [",".join([f"c{i}", *(f"{v:g}" for v in row)]) for i, row in enumerate(X.toarray())]
    table = tmp_path / "b.h5ad"
    table.write_bytes(gzip.compress("\n".join(lines).encode()))
    got = scw.read(table).X
    np.testing.assert_array_equal(got.toarray() if sp.issparse(got) else got, X.toarray())


def test_zarr(tmp_path: Path) -> None:
    pytest.importorskip("zarr", minversion="3")
    for name, version in (("two.zarr", 2), ("three.zarr", 3)):
        scw.write_zarr(ad.AnnData(X.copy()), tmp_path / name, zarr_format=version)
        assert (scw.read(tmp_path / name).X != X).nnz == 0


def test_missing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="does not exist"):
        scw.read(tmp_path / "none")


def test_what_a_wrong_file_is(tmp_path: Path) -> None:
    """Errors name what the file is and who reads it."""
    import gzip

    a = ad.AnnData(sp.random(9, 7, 0.5, "csr", np.float32, random_state=0))
    a.write_h5ad(tmp_path / "a.h5ad")
    a.write_zarr(tmp_path / "a.zarr")
    scw.write_10x_h5(a, tmp_path / "a.h5")
    scw.write_10x_mtx(a, tmp_path / "mtx")
    with gzip.open(tmp_path / "t.csv.gz", "wt") as f:
        f.write("g,a\nc1,x\n")
    for use, says in (
        (lambda: scw.read_10x_h5(tmp_path / "a.h5ad"), "use read_h5ad"),
        (lambda: scw.read_h5ad(tmp_path / "a.h5"), "use read_10x_h5"),
        (lambda: scw.read(tmp_path / "a.zarr/X"), "is no AnnData: it is one csr_matrix of a file"),
        (lambda: scw.read(tmp_path / "mtx/matrix.mtx.gz"), "read the folder.*read_10x_mtx"),
        (lambda: scw.read_csv(tmp_path / "t.csv.gz"), "^read_csv: "),
        (lambda: scw.io.convert(tmp_path / "a.h5ad", tmp_path / "a.h5"), "overwrite=True"),
    ):
        with pytest.raises(ValueError, match=says):
            use()
    with pytest.raises(TypeError, match="in_files must be a list"):
        scw.io.concat_on_disk(str(tmp_path / "a.h5ad"), tmp_path / "o.h5ad")
