"""A script written for scanpy runs with `import scwarp as sc`; scanpy's plots and tools take the result unchanged."""

from __future__ import annotations

import anndata as ad
import matplotlib
import numpy as np
import pytest
import scanpy

import scwarp as sc

matplotlib.use("Agg")


@pytest.fixture(scope="module")
def analysed() -> ad.AnnData:
    a = sc.datasets.simulate(n_cells=600, n_genes=800, n_clusters=4, seed=3)
    sc.pp.calculate_qc_metrics(a, percent_top=None, inplace=True)
    sc.pp.filter_cells(a, min_genes=20)
    sc.pp.filter_genes(a, min_cells=3)
    sc.pp.normalize_total(a, target_sum=1e4)
    sc.pp.log1p(a)
    sc.pp.highly_variable_genes(a, n_top_genes=300)
    a.raw = a
    a = a[:, a.var.highly_variable].copy()
    sc.pp.regress_out(a, ["total_counts"])
    sc.pp.scale(a, max_value=10)
    sc.tl.pca(a, svd_solver="arpack")
    sc.pp.neighbors(a, n_neighbors=10, n_pcs=20)
    sc.tl.umap(a)
    sc.tl.leiden(a, resolution=0.8, flavor="igraph", n_iterations=2, directed=False)
    sc.tl.rank_genes_groups(a, "leiden", method="wilcoxon")
    sc.tl.score_genes(a, list(a.raw.var_names[:20]))
    return a


def test_the_script_finds_clusters(analysed):
    assert analysed.obs["leiden"].nunique() >= 3
    assert np.isfinite(analysed.obsm["X_umap"]).all()
    assert analysed.obs["score"].std() > 0


@pytest.mark.parametrize(
    "plot",
    [
        lambda a: scanpy.pl.umap(a, color=["leiden", "total_counts"], show=False),
        lambda a: scanpy.pl.pca(a, color="leiden", show=False),
        lambda a: scanpy.pl.rank_genes_groups(a, n_genes=5, show=False),
        lambda a: scanpy.pl.rank_genes_groups_dotplot(a, n_genes=2, show=False),
        lambda a: scanpy.pl.highly_variable_genes(a, show=False),
        lambda a: scanpy.pl.pca_variance_ratio(a, show=False),
    ],
    ids=["umap", "pca", "rank_genes_groups", "dotplot", "highly_variable_genes", "pca_variance_ratio"],
)
def test_scanpy_plots_the_result(analysed, plot):
    import matplotlib.pyplot as plt

    plot(analysed)
    plt.close("all")


def test_scanpy_tools_take_the_result(analysed):
    a = analysed.copy()
    scanpy.tl.paga(a)
    n = a.obs["leiden"].nunique()
    assert a.uns["paga"]["connectivities"].shape == (n, n)
    assert a.uns["paga"]["connectivities"].nnz > 0
    scanpy.tl.umap(a, init_pos="paga" if "pos" in a.uns["paga"] else "spectral", maxiter=5)
    scanpy.tl.leiden(a, flavor="igraph", n_iterations=2, directed=False, key_added="theirs")
    frame = scanpy.get.rank_genes_groups_df(a, group="0")
    assert list(frame.columns[:2]) == ["names", "scores"]
    assert (np.diff(frame["scores"]) <= 0).all()
    scanpy.tl.dendrogram(a, "leiden")


def test_the_result_survives_a_file(analysed, tmp_path):
    analysed.write_h5ad(tmp_path / "a.h5ad")
    b = ad.read_h5ad(tmp_path / "a.h5ad")
    np.testing.assert_array_equal(b.obsm["X_umap"], analysed.obsm["X_umap"])
    np.testing.assert_array_equal(
        b.uns["rank_genes_groups"]["names"]["0"].astype(str),
        analysed.uns["rank_genes_groups"]["names"]["0"].astype(str),
    )
