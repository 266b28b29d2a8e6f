"""The program on real data: published cell types and their markers."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from program import Run

MARKERS = {
    "B": ["MS4A1", "CD79A"],
    "NK": ["GNLY", "NKG7"],
    "FCGR3A+ Mono": ["FCGR3A", "MS4A7"],
    "CD14+ Mono": ["LYZ", "S100A8"],
    "Platelet": ["PPBP", "PF4"],
    "CD8 T": ["CCL5"],
    "Naive CD4 T": ["LDHB"],
    "DC": ["FCER1A", "CST3"],
}


BATCHES = ["all", "sc_celseq2", "sc_dropseq", "sc_celseq2_5cl_p1", "sc_celseq2_5cl_p2", "sc_celseq2_5cl_p3"]
RESOLUTIONS = [0.4, 0.6, 0.8, 1.0, 1.2]


def adjusted_rand(a: np.ndarray, b: np.ndarray) -> float:
    from sklearn.metrics import adjusted_rand_score

    return float(adjusted_rand_score(a, b))


def test_pbmc3k_types_and_markers(scwarp: Run, shared_data: Path, tmp_path: Path) -> None:
    import anndata
    import pandas as pd

    folder = shared_data / "pbmc3k"
    resolutions = ["0.4", "0.6", "0.8", "1.0", "1.2"]
    out, page = tmp_path / "out.h5ad", tmp_path / "out.html"
    start = time.monotonic()
    scwarp("run", folder / "pbmc3k_raw.h5ad", "-o", out, "--report", page, "-r", ",".join(resolutions))
    print(f"file to h5ad and report: {time.monotonic() - start:.1f} s")
    a = anndata.read_h5ad(out)
    types = pd.read_csv(folder / "reference_results" / "pbmc3k_labels.csv", index_col=0)["seurat_cell_type"]
    obs = a.obs.join(types, how="inner")
    assert len(obs) > 2600
    scores = {r: adjusted_rand(obs[f"leiden_{r}"], obs["seurat_cell_type"]) for r in resolutions}
    print(scores)
    assert max(scores.values()) >= 0.68
    # Every type's markers are among the first 40 of the cluster that holds most of its cells.
    scwarp("run", folder / "pbmc3k_raw.h5ad", "-f", "-o", out, "-r", "1.2")
    a = anndata.read_h5ad(out)
    obs = a.obs.join(types, how="inner")
    for cell_type, genes in MARKERS.items():
        cluster = obs.loc[obs["seurat_cell_type"] == cell_type, "leiden"].mode()[0]
        top = list(a.uns["rank_genes_groups"]["names"][cluster][:40])
        assert any(g in top for g in genes), (cell_type, cluster, top)


def test_10x_file(scwarp: Run, shared_data: Path, tmp_path: Path) -> None:
    import anndata

    source = shared_data / "pbmc_citeseq_1k_10x_h5" / "1K_pbmc_citeseq.h5"
    scwarp("run", source, "-o", tmp_path / "out.h5ad", "--max-pct-mt", 20)
    a = anndata.read_h5ad(tmp_path / "out.h5ad")
    assert a.n_obs > 500 and a.obs["leiden"].nunique() >= 5
    names = a.uns["rank_genes_groups"]["names"]
    top = {g for c in names.dtype.names for g in names[c][:30]}
    assert {"MS4A1", "LYZ", "NKG7"} <= top


def scanpy_labels(a: object) -> list[np.ndarray]:
    """The same job in scanpy, with the same options; labels for each resolution."""
    sc = pytest.importorskip("scanpy")
    sc.pp.filter_cells(a, min_genes=200)
    sc.pp.filter_genes(a, min_cells=3)
    sc.pp.normalize_total(a)
    sc.pp.log1p(a)
    sc.pp.highly_variable_genes(a, n_top_genes=2000)
    a = a[:, a.var["highly_variable"]].copy()
    sc.pp.scale(a, max_value=10)
    sc.pp.pca(a, n_comps=50)
    sc.pp.neighbors(a)
    labels = []
    for resolution in RESOLUTIONS:
        sc.tl.leiden(a, resolution=resolution, flavor="igraph", n_iterations=2, directed=False)
        labels.append(a.obs["leiden"].to_numpy())
    return labels


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("batch", BATCHES)
def test_cellbench_is_not_behind_scanpy(scwarp: Run, shared_data: Path, tmp_path: Path, batch: str) -> None:
    import anndata

    a = anndata.read_h5ad(shared_data / "cellbench_integration" / "cellbench_5batches.h5ad")
    if batch != "all":
        a = a[a.obs["batch"] == batch].copy()
    a.write_h5ad(tmp_path / "in.h5ad")
    asked = ",".join(map(str, RESOLUTIONS))
    scwarp("run", tmp_path / "in.h5ad", "-o", tmp_path / "out.h5ad", "-r", asked, "--no-umap", "--markers", "none")
    ours = anndata.read_h5ad(tmp_path / "out.h5ad").obs
    scores = [adjusted_rand(ours[f"leiden_{r}"], ours["cell_line"]) for r in RESOLUTIONS]
    theirs = [adjusted_rand(labels, a.obs["cell_line"]) for labels in scanpy_labels(a)]
    print(f"{batch}: ours {np.round(scores, 3)}, scanpy {np.round(theirs, 3)}")
    assert max(scores) >= max(theirs) - 0.02
