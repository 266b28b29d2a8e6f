"""The Python package and the program write the same h5ad: every key, attribute, type, shape and bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pytest
import scipy.sparse as sp
from pipelines import contents_digest, differences, elements, flags, python_pipeline
from program import Run

SHORT = {"n_top_genes": 500, "umap_epochs": 30}

OPTIONS: dict[str, dict[str, Any]] = {
    "implicit scaling": SHORT,
    "explicit scaling, regression, resolutions": {
        **SHORT,
        "scaling": "explicit",
        "regress_out": ["total_counts", "pct_counts_mt"],
        "resolution": [0.4, 0.8, 1.2],
        "n_comps": 20,
        "batch_key": "batch",
        "mt_prefix": ["MT-"],
    },
    "seurat_v3, t-test": {
        "flavor": "seurat_v3",
        "n_top_genes": 500,
        "batch_key": "batch",
        "scaling": "none",
        "resolution": [0.5, 2.0],
        "markers": "t-test",
        "pts": False,
        "n_marker_genes": 100,
        "umap_init": "pca",
        "n_pcs": 15,
        "seed": 7,
        "keep_counts": False,
    },
    "cell_ranger, nn_descent, gauss": {
        "flavor": "cell_ranger",
        "n_top_genes": 300,
        "min_cells": 20,
        "min_genes": 300,
        "max_pct_mt": 10,
        "target_sum": 1e4,
        "scaling": "explicit",
        "max_value": None,
        "metric": "cosine",
        "knn": "nn_descent",
        "connectivities": "gauss",
        "umap_init": "random",
        "umap_epochs": 30,
        "markers": "t-test_overestim_var",
        "groupby": "cluster",
    },
    "logistic regression": {**SHORT, "markers": "logreg", "pts": False, "resolution": [0.3], "n_marker_genes": 200},
    "regression on a category, ties": {
        **SHORT,
        "regress_out": ["batch"],
        "tie_correct": True,
        "knn": "brute",
        "connectivities": "jaccard",
        "seed": 3,
    },
}


@pytest.fixture(scope="module")
def batches(scwarp: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "batches.h5ad"
    size = ("--n-cells", 800, "--n-genes", 2000, "--n-clusters", 4, "--mean-counts", 1500)
    scwarp("simulate", "-o", path, *size, "--n-batches", 3)
    return path


def check(scwarp: Run, source: Path, folder: Path, options: dict[str, Any]) -> None:
    python_pipeline(source, folder / "python.h5ad", options)
    scwarp("run", source, "-o", folder / "program.h5ad", *flags(options))
    assert differences(folder / "python.h5ad", folder / "program.h5ad") == []


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", list(OPTIONS))
def test_simulated(scwarp: Run, batches: Path, tmp_path: Path, name: str) -> None:
    check(scwarp, batches, tmp_path, OPTIONS[name])


LAYOUTS = {
    "float64": lambda x: x.astype(np.float64),
    "int32": lambda x: x.astype(np.int32),
    "uint16": lambda x: x.astype(np.uint16),
    "csc": sp.csc_matrix,
    "dense": lambda x: x.toarray(),
    "dense int64": lambda x: x.toarray().astype(np.int64),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("layout", list(LAYOUTS))
def test_layouts_of_the_input(scwarp: Run, batches: Path, tmp_path: Path, layout: str) -> None:
    a = ad.read_h5ad(batches)
    a.X = LAYOUTS[layout](a.X)
    a.uns["mine"] = {"numbers": np.arange(3), "text": "kept", "deeper": {"flag": True}}
    a.obsm["mine"] = np.random.default_rng(0).normal(size=(a.n_obs, 3))
    a.obsp["mine"] = sp.random(a.n_obs, a.n_obs, 0.01, "csr", random_state=0)
    a.write_h5ad(tmp_path / "input.h5ad")
    check(scwarp, tmp_path / "input.h5ad", tmp_path, {**SHORT, "umap_epochs": 5, "resolution": [0.5, 1.0]})


@pytest.mark.filterwarnings("ignore")
def test_written_by_anndata(scwarp: Run, batches: Path, tmp_path: Path) -> None:
    """anndata's writer gives the same content as ours (it stores the same arrays in other chunks, and values that are
    None, which ours leaves out because older versions of anndata cannot read them)."""
    python_pipeline(batches, tmp_path / "python.h5ad", SHORT, write=lambda a, path: a.write_h5ad(path))
    scwarp("run", batches, "-o", tmp_path / "program.h5ad", *flags(SHORT))
    none = {
        f"only in python.h5ad: {name}"
        for name, (attributes, *_) in elements(tmp_path / "python.h5ad")
        if attributes.get("encoding-type") == "null"
    }
    assert set(differences(tmp_path / "python.h5ad", tmp_path / "program.h5ad")) == none


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "options",
    [
        {"resolution": [0.4, 0.6, 0.8, 1.0, 1.2]},
        {"scaling": "explicit", "regress_out": ["total_counts", "pct_counts_mt"], "flavor": "seurat_v3"},
    ],
    ids=["implicit scaling", "explicit scaling, regression, seurat_v3"],
)
def test_pbmc3k(scwarp: Run, shared_data: Path, tmp_path: Path, options: dict[str, Any]) -> None:
    check(scwarp, shared_data / "pbmc3k" / "pbmc3k_raw.h5ad", tmp_path, options)


def test_the_comparison_sees_a_single_bit(scwarp: Run, batches: Path, tmp_path: Path) -> None:
    import h5py

    scwarp("run", batches, "-o", tmp_path / "a.h5ad", *flags(SHORT))
    (tmp_path / "b.h5ad").write_bytes((tmp_path / "a.h5ad").read_bytes())
    assert differences(tmp_path / "a.h5ad", tmp_path / "b.h5ad") == []
    with h5py.File(tmp_path / "b.h5ad", "r+") as f:
        f["obsm/X_umap"][7, 1] = np.nextafter(f["obsm/X_umap"][7, 1], np.float32(np.inf))
        f["obs/leiden"].attrs["ordered"] = True
        markers = f["uns/rank_genes_groups/names"][()]
        markers[3]["0"] = "another"
        f["uns/rank_genes_groups/names"][...] = markers
    found = differences(tmp_path / "a.h5ad", tmp_path / "b.h5ad")
    assert [d.partition(":")[0] for d in found] == ["obs/leiden", "obsm/X_umap", "uns/rank_genes_groups/names"]
    assert contents_digest(tmp_path / "a.h5ad") != contents_digest(tmp_path / "b.h5ad")


def test_reruns_and_threads_give_the_same_file(scwarp: Run, batches: Path, tmp_path: Path) -> None:
    """5 runs on 1, 2 and 3 threads, with the steps that share work between threads in different ways."""
    steps = {"scaling": "explicit", "regress_out": ["total_counts"], "knn": "nn_descent", "resolution": [0.5, 1.0]}
    digests, files = set(), set()
    for threads in (1, 2, 3, 2, 2):
        scwarp("run", batches, "-f", "-o", tmp_path / "o.h5ad", *flags({**SHORT, **steps}), "--threads", threads)
        digests.add(contents_digest(tmp_path / "o.h5ad"))
        files.add((tmp_path / "o.h5ad").read_bytes())
    assert len(digests) == 1
    assert len(files) == 1  # and the file itself, down to its time stamps


def test_graphs_keep_their_order(tmp_path: Path) -> None:
    """scanpy's distances list the neighbours of a cell nearest first; writing must not sort them by index."""
    import scwarp as scw

    nearest_first = sp.csr_matrix(
        (np.array([1, 2, 1, 3, 2, 5], np.float32), [2, 1, 2, 0, 1, 0], [0, 2, 4, 6]), shape=(3, 3)
    )
    a = ad.AnnData(np.ones((3, 2), np.float32), obsp={"distances": nearest_first})
    scw.io.write_h5ad(a, tmp_path / "a.h5ad")
    back = ad.read_h5ad(tmp_path / "a.h5ad").obsp["distances"]
    np.testing.assert_array_equal(back.indices, [2, 1, 2, 0, 1, 0])
    np.testing.assert_array_equal(back.data, nearest_first.data)
    nearest_first.indices[1] = 2
    with pytest.raises(scw.DataError, match="duplicate index 2"):
        scw.io.write_h5ad(a, tmp_path / "b.h5ad")
