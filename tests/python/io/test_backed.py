"""backed="r": matrices that stay in their file give what the same steps give in memory, for any blocks."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from conftest import simulated_counts
from formats import FORMATS, opened, read, whole, write

import scwarp as scw

pytestmark = pytest.mark.filterwarnings("ignore::zarr.errors.UnstableSpecificationWarning", "ignore:Consolidated")

BLOCKS = [None, "1KiB", "30KiB"]
DTYPES = ["float32", "float64", "int32", "int64"]


def plain(x) -> np.ndarray:
    return x.toarray() if sp.issparse(x) else np.asarray(x)


def example(dtype="float32", layout="csr") -> ad.AnnData:
    x = simulated_counts(400, 150, seed=4).tocsr().astype(dtype)
    x = x.toarray() if layout == "dense" else x
    a = ad.AnnData(x)
    a.var["mt"] = np.arange(a.n_vars) < 13
    a.obs["group"] = pd.Categorical(np.array(["a", "b", "c"])[np.arange(a.n_obs) % 3])
    a.layers["counts"] = a.X.copy()
    return a


@pytest.fixture(params=BLOCKS)
def block(request):
    with scw.settings.override(block_bytes=request.param, device="cpu"):
        yield request.param


@pytest.fixture(params=FORMATS)
def form(request):
    if request.param != "h5ad":
        pytest.importorskip("zarr", minversion="3")
    return request.param


@pytest.fixture
def both(tmp_path, form):
    """In memory, on disk."""

    def written(a: ad.AnnData) -> tuple[ad.AnnData, ad.AnnData]:
        path = write(a, tmp_path, form)
        return read(path), read(path, backed="r")

    return written


def stays(x) -> bool:
    return "on disk" in repr(x)


def same(a: ad.AnnData, b: ad.AnnData) -> None:
    pd.testing.assert_frame_equal(a.obs, b.obs)
    pd.testing.assert_frame_equal(a.var, b.var)
    assert set(a.obsm) == set(b.obsm) and set(a.uns) == set(b.uns)
    for key in a.obsm:
        np.testing.assert_array_equal(a.obsm[key], b.obsm[key])
    assert a.X.dtype == b.X.dtype
    np.testing.assert_array_equal(plain(a.X), plain(b.X[:]))


@pytest.mark.parametrize("layout", ["csr", "dense"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_reading(both, dtype, layout):
    a, b = both(example(dtype, layout))
    assert not b.isbacked and stays(b.X) and stays(b.layers["counts"])
    assert b.X.shape == a.X.shape and b.X.dtype == a.X.dtype
    same(a, b)
    loaded = b.to_memory()
    assert type(loaded.X) is type(a.X) and loaded.X.dtype == dtype
    np.testing.assert_array_equal(plain(loaded.X), plain(a.X))
    np.testing.assert_array_equal(plain(loaded.layers["counts"]), plain(a.X))


@pytest.mark.parametrize("layout", ["csr", "dense"])
@pytest.mark.parametrize("dtype", ["float32", "int64"])
def test_main_job(both, dtype, layout, block):
    results = both(example(dtype, layout))
    for d in results:
        scw.pp.calculate_qc_metrics(d, qc_vars=["mt"], percent_top=[10, 50], inplace=True)
        scw.pp.filter_cells(d, min_genes=int(np.median(d.obs["n_genes_by_counts"])) - 5)
        scw.pp.filter_genes(d, min_cells=10)
        scw.pp.normalize_total(d, target_sum=1e4)
        scw.pp.log1p(d)
        scw.pp.highly_variable_genes(d, n_top_genes=60)
        scw.pp.pca(d, n_comps=8)
    a, b = results
    assert a.n_obs < 400 and a.n_vars < 150
    assert stays(b.X) and "log1p" in b.X.pending
    same(a, b)
    np.testing.assert_array_equal(a.varm["PCs"], b.varm["PCs"])


STEPS = {
    "target": lambda d: scw.pp.normalize_total(d, target_sum=1e3),
    "median": lambda d: scw.pp.normalize_total(d, key_added="factor"),
    "exclude": lambda d: scw.pp.normalize_total(d, exclude_highly_expressed=True, max_fraction=0.03),
    "layer": lambda d: scw.pp.normalize_total(d, target_sum=1e3, layer="counts"),
    "log1p": lambda d: scw.pp.log1p(d),
    "log2": lambda d: scw.pp.log1p(d, base=2),
    "sqrt": lambda d: scw.pp.sqrt(d),
    "twice": lambda d: (scw.pp.sqrt(d), scw.pp.normalize_total(d)),
    "subset": lambda d: scw.pp.subset(d, cells=np.arange(d.n_obs) % 3 != 0, genes=np.arange(d.n_vars) % 2 == 0),
    "genes twice": lambda d: (
        scw.pp.subset(d, genes=np.arange(d.n_vars) % 3 != 0),
        scw.pp.subset(d, genes=np.arange(d.n_vars) % 2 == 0),
        scw.pp.log1p(d),
        scw.pp.subset(d, genes=np.arange(d.n_vars) % 2 == 1),
    ),
    "cells after factors": lambda d: (
        scw.pp.normalize_total(d),
        scw.pp.subset(d, cells=np.arange(d.n_obs) % 3 != 0),
        scw.pp.sqrt(d),
        scw.pp.subset(d, cells=np.arange(d.n_obs) % 3 != 0),
    ),
}


@pytest.mark.parametrize("layout", ["csr", "dense"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("step", list(STEPS))
def test_row_operations(both, step, dtype, layout):
    a, b = both(example(dtype, layout))
    STEPS[step](a)
    with scw.settings.override(block_bytes="7KiB"):
        STEPS[step](b)
        assert stays(b.X) and stays(b.layers["counts"])
        same(a, b)
        np.testing.assert_array_equal(plain(b.layers["counts"][:]), plain(a.layers["counts"]))
    again = ad.AnnData(read(Path(b.X.path)).X)
    assert again.shape == (400, 150)  # the file is as it was


def test_large_integers_are_computed_in_double(both):
    x = example("int64")
    x.X.data[3] = 2**24 + 1
    a, b = both(x)
    for d in (a, b):
        scw.pp.normalize_total(d, target_sum=1e4)
    assert a.X.dtype == b.X.dtype == np.float64
    same(a, b)


def test_not_in_place(both):
    a, b = both(example())
    want, got = (scw.pp.normalize_total(d, inplace=False) for d in (a, b))
    np.testing.assert_array_equal(plain(got["X"][:]), plain(want["X"]))
    np.testing.assert_array_equal(got["norm_factor"], want["norm_factor"])
    np.testing.assert_array_equal(plain(scw.pp.log1p(b.X)[:]), plain(scw.pp.log1p(a.X)))
    assert b.X.pending == ()
    copied = scw.pp.log1p(b, copy=True)
    assert copied.X.pending == ("log1p",) and b.X.pending == ()


READERS = {
    "qc": lambda d: scw.pp.calculate_qc_metrics(d, qc_vars=["mt"], percent_top=[5])[0],
    "hvg": lambda d: scw.pp.highly_variable_genes(d, n_top_genes=40, inplace=False),
    "hvg batches": lambda d: scw.pp.highly_variable_genes(d, n_top_genes=40, batch_key="group", inplace=False),
    "hvg v3": lambda d: scw.pp.highly_variable_genes(
        d, flavor="seurat_v3", n_top_genes=40, check_values=False, inplace=False
    ),
    "hvg pearson": lambda d: scw.pp.highly_variable_genes(
        d, flavor="pearson_residuals", n_top_genes=40, check_values=False, inplace=False
    ),
    "pca": lambda d: scw.pp.pca(d, n_comps=6, copy=True).obsm["X_pca"],
    "pca of a matrix": lambda d: scw.pp.pca(d.X, n_comps=6),
    "lazy scale": lambda d: _scaled(d),
    "t-test": lambda d: _ranked(d, "t-test"),
    "wilcoxon": lambda d: _ranked(d, "wilcoxon"),
    "logreg": lambda d: _ranked(d, "logreg", max_iter=8),
    "score": lambda d: scw.tl.score_genes(d, list(d.var_names[3:9]), copy=True).obs["score"],
    "aggregate": lambda d: np.stack(
        [v for v in scw.get.aggregate(d, "group", ["mean", "var", "sum", "count_nonzero"]).layers.values()]
    ),
    "filter_cells": lambda d: scw.pp.filter_cells(d, min_genes=50, inplace=False)[1],
    "filter_genes": lambda d: scw.pp.filter_genes(d, min_counts=50, inplace=False)[1],
}


def _scaled(d):
    scw.pp.scale(d, lazy=True, max_value=5)
    scw.pp.pca(d, n_comps=6)
    return np.concatenate([d.obsm["X_pca"].ravel(), d.var["mean"], d.var["std"]])


def _ranked(d, method, **kwds):
    scw.tl.rank_genes_groups(d, "group", method=method, pts=True, **kwds)
    return np.stack([np.asarray(scw.get.rank_genes_groups_df(d, g).drop(columns="names"), float) for g in "abc"])


@pytest.mark.parametrize("layout", ["csr", "dense"])
@pytest.mark.parametrize("name", list(READERS))
def test_readers(both, name, layout, block):
    a, b = both(example("float32", layout))
    for d in (a, b):
        scw.pp.normalize_total(d)
        scw.pp.log1p(d)
    want, got = (READERS[name](d) for d in (a, b))
    assert stays(b.X)
    if isinstance(want, (pd.DataFrame, pd.Series)):
        want.equals(got)
        want, got = (np.asarray(v, dtype=float) for v in (want, got))
    assert want.size > 0 and np.abs(np.nan_to_num(want)).sum() > 0
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("layout", ["csr", "dense"])
@pytest.mark.parametrize("dtype", ["float32", "int32"])
def test_backed_by_anndata(tmp_path, form, dtype, layout):
    """What anndata opened is read too, without loading it."""
    a = example(dtype, layout)
    path = write(a, tmp_path, form)
    for mode in ("r", "r+") if form == "h5ad" else ():
        b = ad.read_h5ad(path, backed=mode)
        want, got = (scw.pp.calculate_qc_metrics(d, percent_top=[5])[0] for d in (a, b))
        pd.testing.assert_frame_equal(got, want)
        np.testing.assert_array_equal(scw.pp.pca(b.X, n_comps=5), scw.pp.pca(a.X, n_comps=5))
        with pytest.raises(TypeError, match="to_memory"):
            scw.pp.normalize_total(b)
        b.file.close()
    with opened(path) as f:
        x = f["X"] if layout == "dense" else ad.io.sparse_dataset(f["X"])
        if layout != "dense":
            c = ad.AnnData(obs=a.obs, var=a.var, layers={"x": x})
            got = scw.get.aggregate(c, "group", "mean", layer="x").layers["mean"]
            np.testing.assert_array_equal(got, scw.get.aggregate(a, "group", "mean").layers["mean"])
        np.testing.assert_array_equal(scw.pp.pca(x, n_comps=5), scw.pp.pca(a.X, n_comps=5))


@pytest.mark.parametrize("layout", ["csr", "dense"])
def test_indexing(both, layout):
    a, b = both(example("float32", layout))
    for d in (a, b):
        scw.pp.log1p(d)
    x, y = a.X, b.X
    mask = np.arange(400) % 7 == 2
    picks = np.array([5, 3, 399, 3, -1])
    for rows in (slice(None), slice(3, 20), slice(20, 3, -2), mask, picks, [], 7, -2, np.int64(4), pd.Series(mask)):
        want = x[np.asarray(rows) if isinstance(rows, (list, pd.Series)) and len(rows) else rows]
        got = y[rows]
        assert sp.issparse(got) == sp.issparse(want) and got.shape == want.shape
        np.testing.assert_array_equal(plain(got), plain(want))
    genes = np.array([9, 2, 2, 140])
    np.testing.assert_array_equal(plain(y[:, genes]), plain(x[:, genes]))
    np.testing.assert_array_equal(plain(y[picks, genes]), plain(x[picks][:, genes]))
    np.testing.assert_array_equal(plain(y[mask, 10:20]), plain(x[mask][:, 10:20]))
    assert y[6, 17] == x[6, 17]
    dense = plain(x)
    for index in [..., (..., 7), (7, ...), (..., genes), (mask, ...), (..., slice(3), 5), (4, 5, ...), (2, ..., 9)]:
        np.testing.assert_array_equal(plain(y[index]).squeeze(), dense[index].squeeze())
    for many in ((..., ...), (..., 0, 0, 0)):
        with pytest.raises(IndexError):
            y[many]
    for wrong in (400, np.array([0, 400]), np.ones(3, bool), np.array([0.5])):
        with pytest.raises(IndexError):
            y[wrong]
    with pytest.raises(TypeError, match="to_memory"):
        y[0] = 1


@pytest.mark.parametrize("layout", ["csr", "dense"])
def test_anndata_around_it(both, layout):
    a, b = both(example("float32", layout))
    for d in (a, b):
        scw.pp.normalize_total(d)
    keep, genes = a.obs["group"] == "b", a.var_names[[5, 8, 100]]
    view = b[keep, genes]
    assert stays(view.X) and view.shape == (keep.sum(), 3)
    copied = view.copy()
    assert stays(copied.X) and not copied.is_view
    np.testing.assert_array_equal(plain(copied.X[:]), plain(a[keep, genes].X))
    np.testing.assert_array_equal(plain(copied.to_memory().X), plain(a[keep, genes].X))
    backwards = b[::-1, genes[::-1]]
    np.testing.assert_array_equal(plain(backwards.X), plain(a[::-1, genes[::-1]].X))
    for other in (pickle.loads(pickle.dumps(b.X)), copy.deepcopy(b.X), b.copy().X):
        np.testing.assert_array_equal(plain(other[:]), plain(a.X))
    np.testing.assert_array_equal(b.obs_vector(genes[0]), a.obs_vector(genes[0]))


@pytest.mark.parametrize("layout", ["csr", "dense"])
@pytest.mark.parametrize(
    ("name", "save"),
    [
        ("b.h5ad", lambda d, p: d.write_h5ad(p)),
        ("b.h5ad", lambda d, p: scw.write_h5ad(d, p)),
        ("b.zarr", lambda d, p: d.write_zarr(p)),
    ],
)
def test_writing(both, tmp_path, layout, name, save, monkeypatch):
    monkeypatch.setattr("scwarp._on_disk._PART_BYTES", 20000)
    a, b = both(example("float32", layout))
    for d in (a, b):
        scw.pp.log1p(d)
        scw.pp.subset(d, genes=np.arange(150) % 2 == 0)
    save(b, tmp_path / name)
    c = whole(tmp_path / name)
    assert type(c.X) is type(a.X) and c.X.dtype == a.X.dtype
    np.testing.assert_array_equal(plain(c.X), plain(a.X))
    np.testing.assert_array_equal(plain(c.layers["counts"]), plain(a.layers["counts"]))


def test_raw(both):
    x = example()
    x.raw = x.copy()
    scw.pp.log1p(x)
    a, b = both(x)
    assert stays(b.raw.X)
    least = int(np.median(x.X.getnnz(axis=1)))
    for d in (a, b):
        scw.pp.filter_cells(d, min_genes=least)
    assert a.n_obs < 400
    want, got = (scw.pp.calculate_qc_metrics(d, use_raw=True, percent_top=None)[0] for d in (a, b))
    pd.testing.assert_frame_equal(got, want)


def test_operations_that_cannot_stream_say_so(both):
    _, b = both(example())
    b.obs["depth"] = np.arange(400.0)
    for call in (
        lambda: scw.pp.scale(b),
        lambda: scw.pp.regress_out(b, "depth"),
        lambda: scw.pp.neighbors(b, use_rep="X"),
        lambda: scw.get.aggregate(b, "mt", "mean", axis="var"),
    ):
        with pytest.raises(TypeError, match="to_memory"):
            call()
    assert stays(b.X) and b.X.pending == ()


def test_errors(tmp_path, form):
    a = example()
    path = write(a, tmp_path, form)
    with pytest.raises(ValueError, match="expected 'r'"):
        read(path, backed="r+")
    with pytest.raises(ValueError, match="check_counts"):
        read(path, backed="r", check_counts=True)
    with pytest.raises(ValueError, match="device"):
        read(path, backed="r", device="cuda")
    b = read(path, backed="r")
    with pytest.raises(ValueError, match="target_sum must be positive"):
        scw.pp.normalize_total(b, target_sum=-1)
    with pytest.raises(ValueError, match="base must be positive"):
        scw.pp.log1p(b, base=1)
    a.X = a.X.tocsc()
    with pytest.raises(NotImplementedError, match="--csr"):
        read(write(a, tmp_path, form, "csc"), backed="r")
    with opened(path, "r+") as f:
        f["X/indices"][5] = 5000
    with pytest.raises(scw.DataError, match="out of range"):
        scw.pp.pca(read(path, backed="r").X, n_comps=3)


@pytest.mark.parametrize("layout", [np.asarray, sp.csr_matrix])
@pytest.mark.parametrize("dtype", ["int64", "uint64"])
def test_integers_that_no_double_holds(tmp_path, dtype, layout):
    a = ad.AnnData(layout(np.array([[2**53 + 1, 0], [3, 1]], dtype)))
    a.layers["fits"] = layout(np.array([[2**53 - 1, 0], [3, 1]], dtype))
    a.write_h5ad(tmp_path / "a.h5ad")
    b = scw.read_h5ad(tmp_path / "a.h5ad", backed="r")
    for use in (
        lambda: b.X[:],
        lambda: b.X[[0]],
        lambda: scw.pp.log1p(b.X)[:1],
        lambda: scw.pp.calculate_qc_metrics(b, percent_top=None),
    ):
        with pytest.raises(TypeError, match=r"above 2\^53.*whole"):
            use()
    assert plain(b.X[1:]).tolist() == [[3, 1]]  # of these rows all fit
    np.testing.assert_array_equal(plain(b.layers["fits"][:]), plain(a.layers["fits"]))


def test_columns_beside_rows(tmp_path, form):
    """CSC in layers and raw does not keep a file from being opened, and scwarp.io.convert(csr=True) turns it."""
    a = example("int32")
    a.raw = a.copy()
    a.raw._X = a.raw.X.tocsc()
    a.layers["columns"] = a.X.tocsc()
    path = write(a, tmp_path, form)
    b = read(path, backed="r")
    for x in (b.layers["columns"], b.raw.X):
        assert stays(x) and x.shape == a.shape and x.dtype == np.int32 and "on disk" in repr(x)
        assert (x.to_memory() != a.X).nnz == 0 and x.to_memory().dtype == np.int32
        assert (pickle.loads(pickle.dumps(x))[5:9] != a.X[5:9]).nnz == 0
    scw.pp.log1p(b)
    for use in (
        lambda: scw.pp.log1p(b, layer="columns"),
        lambda: scw.pp.normalize_total(b, layer="columns"),
        lambda: scw.pp.pca(b, layer="columns", n_comps=3),
        lambda: scw.get.aggregate(b, "group", "mean", layer="columns"),
    ):
        with pytest.raises(NotImplementedError, match=r"by columns.*--csr"):
            use()
    some = b[a.obs["group"] == "b", 10:40].copy()
    assert stays(some.layers["columns"])
    want = a[a.obs["group"] == "b", 10:40]
    assert (some.to_memory().layers["columns"] != want.layers["columns"]).nnz == 0
    again = whole(write(some, tmp_path, form, "some"))
    assert (again.layers["columns"] != want.layers["columns"]).nnz == 0

    a.X = a.X.tocsc()
    turned = tmp_path / f"turned{path.suffix}"
    scw.io.convert(write(a, tmp_path, form, "all"), turned, csr=True)
    c = read(turned, backed="r")
    for x in (c.X, c.layers["columns"], c.raw.X):
        assert x.format == "csr" and x.dtype == np.int32
        assert (x.to_memory() != a.X.tocsr()).nnz == 0
    scw.pp.log1p(c, layer="columns")


def test_threads_do_not_show(both):
    _, b = both(example())
    scw.pp.normalize_total(b)
    scw.pp.log1p(b)
    results = []
    for threads in (1, 2, 3):
        with scw.settings.override(n_threads=threads, block_bytes=f"{threads * 5}KiB"):
            results.append(scw.pp.pca(b.X, n_comps=5))
    np.testing.assert_array_equal(results[0], results[1])
    np.testing.assert_array_equal(results[0], results[2])
