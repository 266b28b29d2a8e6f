"""The main job stage by stage against scanpy, live: each stage gets the object that scanpy has made so far.

The bounds are the project's; parameters, layouts and edges of each function have their own tests in pp/ and tl/.
"""

from __future__ import annotations

import os
import warnings

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
from conftest import SHARED, dense, rank_stably

import scwarp as scw

CLOSE: dict[str, float] = {"rtol": 1e-5, "atol": 1e-6}
SOURCES = ["pbmc3k", "cellbench", "simulated", "simulated 20k"]
FLAVORS = ["seurat", "cell_ranger", "seurat_v3"]
GENES = 1000


def _source(name: str) -> ad.AnnData:
    if name == "simulated":
        return scw.datasets.simulate(n_cells=3000, n_genes=3000, n_clusters=6, mean_counts=1500, seed=5)
    if name == "simulated 20k":
        if not os.environ.get("SCWARP_TEST_LARGE"):
            pytest.skip("20 000 x 20 000 takes scanpy minutes: set SCWARP_TEST_LARGE=1")
        return scw.datasets.simulate(n_cells=20_000, n_genes=20_000, n_clusters=20, mean_counts=3000, seed=6)
    paths = {"pbmc3k": "pbmc3k/pbmc3k_raw.h5ad", "cellbench": "cellbench_integration/cellbench_5batches.h5ad"}
    path = SHARED / "data" / paths[name]
    if not path.exists():
        pytest.skip(f"{path} not found: set SCWARP_SHARED to the folder that holds data/")
    return ad.read_h5ad(path)


@pytest.fixture(scope="module", params=SOURCES)
def made(request: pytest.FixtureRequest) -> dict[str, ad.AnnData]:
    """What scanpy makes, by stage. Tests take copies."""
    out: dict[str, ad.AnnData] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        a = out["source"] = _source(request.param)
        a = a.copy()
        a.var["mt"] = a.var_names.str.startswith("MT-")
        sc.pp.calculate_qc_metrics(a, qc_vars=["mt"], percent_top=(50, 200), inplace=True)
        out["qc"] = a.copy()
        sc.pp.filter_cells(a, min_genes=250)
        sc.pp.filter_genes(a, min_cells=5)
        out["filtered"] = a.copy()
        sc.pp.normalize_total(a)
        out["normalised"] = a.copy()
        sc.pp.log1p(a)
        out["log1p"] = a.copy()
        for flavor in FLAVORS:
            b = {"seurat": "log1p", "cell_ranger": "normalised", "seurat_v3": "filtered"}[flavor]
            out[flavor] = out[b].copy()
            with pytest.MonkeyPatch.context() as patch:
                rank_stably(patch)
                sc.pp.highly_variable_genes(out[flavor], n_top_genes=GENES, flavor=flavor)
        a = out["seurat"].copy()
        a = a[:, a.var["highly_variable"]].copy()
        out["selected"] = a.copy()
        sc.pp.regress_out(a, ["total_counts", "n_genes_by_counts"])
        out["regressed"] = a
        a = out["selected"].copy()
        sc.pp.scale(a, max_value=10)
        out["scaled"] = a.copy()
        sc.pp.pca(a, n_comps=30)
        out["pca"] = a.copy()
        sc.pp.neighbors(a, n_neighbors=15, transformer="sklearn")  # over 8 192 cells scanpy's default is approximate
        out["neighbors"] = a.copy()
        sc.tl.leiden(a, flavor="igraph", n_iterations=2, directed=False, resolution=0.5)
        b = out["log1p"].copy()
        b.obs["leiden"] = a.obs["leiden"]
        out["clustered"] = b
        for method in ("t-test", "wilcoxon"):
            out[method] = b.copy()
            # of float32 values scanpy makes float32 squares, which costs the variances of small groups their digits
            out[method].X = b.X.astype(np.float64)
            sc.tl.rank_genes_groups(out[method], "leiden", method=method)
    return out


def same_frame(ours: pd.DataFrame, theirs: pd.DataFrame) -> None:
    assert list(ours) == list(theirs)
    for c in theirs:
        assert ours[c].dtype == theirs[c].dtype, c
        if c.startswith(("n_", "total_", "highly_variable")) or theirs[c].dtype.kind != "f":
            pd.testing.assert_series_equal(ours[c], theirs[c])
        else:
            np.testing.assert_allclose(ours[c], theirs[c], **CLOSE, err_msg=c)


def test_qc(made):
    a = made["source"].copy()
    scw.pp.flag_gene_family(a, gene_family_name="mt", gene_family_prefix="MT-")
    scw.pp.calculate_qc_metrics(a, qc_vars=["mt"], percent_top=(50, 200), inplace=True)
    same_frame(a.obs, made["qc"].obs)
    same_frame(a.var, made["qc"].var)


def test_filters(made):
    a = made["qc"].copy()
    scw.pp.filter_cells(a, min_genes=250)
    scw.pp.filter_genes(a, min_cells=5)
    want = made["filtered"]
    assert a.shape == want.shape
    pd.testing.assert_frame_equal(a.obs, want.obs)
    pd.testing.assert_frame_equal(a.var, want.var)
    assert (a.X != want.X).nnz == 0


def test_normalise(made):
    a = made["filtered"].copy()
    scw.pp.normalize_total(a)
    np.testing.assert_allclose(a.X.data, made["normalised"].X.data, **CLOSE)


def test_log1p(made):
    a = made["normalised"].copy()
    scw.pp.log1p(a)
    np.testing.assert_allclose(a.X.data, made["log1p"].X.data, **CLOSE)


@pytest.mark.parametrize("flavor", FLAVORS)
def test_variable_genes(made, flavor):
    a = made[{"seurat": "log1p", "cell_ranger": "normalised", "seurat_v3": "filtered"}[flavor]].copy()
    scw.pp.highly_variable_genes(a, n_top_genes=GENES, flavor=flavor)
    assert a.var["highly_variable"].sum() == GENES
    same_frame(a.var, made[flavor].var)


def test_regress_out(made):
    a = made["selected"].copy()
    scw.pp.regress_out(a, ["total_counts", "n_genes_by_counts"])
    np.testing.assert_allclose(a.X, made["regressed"].X, **CLOSE)


def test_scale(made):
    a = made["selected"].copy()
    scw.pp.scale(a, max_value=10)
    np.testing.assert_allclose(dense(a.X), dense(made["scaled"].X), **CLOSE)
    np.testing.assert_allclose(a.var[["mean", "std"]], made["scaled"].var[["mean", "std"]], **CLOSE)


@pytest.mark.parametrize("implicit", [False, True])
def test_pca(made, implicit):
    """`implicit`: of the log values, scaled inside. Scores of components that are 2 % of variance from the next."""
    a, want = made["selected" if implicit else "scaled"].copy(), made["pca"]
    scw.pp.pca(a, n_comps=30, **({"scale": True, "max_value": 10} if implicit else {}))
    for key in ("variance", "variance_ratio"):
        np.testing.assert_allclose(a.uns["pca"][key], want.uns["pca"][key], rtol=1e-5)
    variance = want.uns["pca"]["variance"].astype(float)
    gaps = variance[:-1] / variance[1:] > 1.02
    apart = np.flatnonzero(np.r_[True, gaps] & np.r_[gaps, False])
    assert len(apart) >= 3
    x, y = a.obsm["X_pca"][:, apart], want.obsm["X_pca"][:, apart]
    sign = np.sign((x * y).sum(0))
    np.testing.assert_allclose(x * sign, y, rtol=1e-4, atol=1e-4 * np.abs(y).max())
    sizes = want.varm["PCs"][:, apart]
    np.testing.assert_allclose(a.varm["PCs"][:, apart] * sign, sizes, atol=1e-4)


def test_neighbors(made):
    a, want = made["pca"].copy(), made["neighbors"]
    scw.pp.neighbors(a, n_neighbors=15)
    points = want.obsm["X_pca"].astype(np.float64)
    squares = (points**2).sum(1)
    k = 14
    values, columns = (x.reshape(-1, k) for x in (a.obsp["distances"].data, a.obsp["distances"].indices))
    elsewhere = 0
    for first in range(0, len(points), 2000):
        rows = np.arange(first, min(first + 2000, len(points)))
        d = np.sqrt(np.maximum(squares[rows, None] + squares[None, :] - 2 * points[rows] @ points.T, 0))
        d[np.arange(len(rows)), rows] = -1
        nearest = np.argsort(d, axis=1, kind="stable")[:, 1 : k + 1]
        exact = np.take_along_axis(d, nearest, axis=1)
        np.testing.assert_allclose(values[rows], exact, rtol=1e-5)
        # The same cells in the same order; where two differ they are equally far.
        found = columns[rows]
        np.testing.assert_allclose(np.take_along_axis(d, found, axis=1), exact, rtol=1e-6)
        elsewhere += int((found != nearest).sum())
    assert elsewhere < 1e-3 * columns.size
    # scanpy's (umap-learn's) own search for the width of the kernel stops at 1e-5.
    x, y = a.obsp["connectivities"], want.obsp["connectivities"]
    assert abs(x - y).max() < 2e-5
    assert (x != 0).nnz == pytest.approx((y != 0).nnz, rel=1e-3)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("method", ["t-test", "wilcoxon"])
def test_markers(made, method):
    a, want = made["clustered"].copy(), made[method]
    scw.tl.rank_genes_groups(a, "leiden", method=method)
    x, y = a.uns["rank_genes_groups"], want.uns["rank_genes_groups"]
    assert x["names"].dtype == y["names"].dtype and len(x["names"]) == len(y["names"])
    keys = ("scores", "logfoldchanges", "pvals", "pvals_adj")
    for group in y["names"].dtype.names:
        ours, theirs = (pd.DataFrame({k: r[k][group] for k in keys}, index=r["names"][group]) for r in (x, y))
        for k in keys:
            np.testing.assert_allclose(ours[k], theirs[k].loc[ours.index], **CLOSE, err_msg=f"{group} {k}")
        # The order is by score: genes in other places have the same score.
        apart = np.asarray(ours.index != theirs.index)
        np.testing.assert_allclose(ours["scores"][apart], theirs["scores"][apart], **CLOSE)
