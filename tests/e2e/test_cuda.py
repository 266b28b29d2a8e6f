"""The main job on a GPU against the CPU's: the same bits up to the PCA and in the markers, close from there on, and the
same file on every run."""

from __future__ import annotations

import json
from pathlib import Path

import anndata as ad
import numpy as np
import pytest
from pipelines import differences
from program import Run

OPTIONS = {
    "implicit": ["--n-top-genes", "500", "--groupby", "cluster"],
    "explicit": ["--n-top-genes", "500", "--scaling", "explicit", "--regress-out", "total_counts,pct_counts_mt",
                 "--groupby", "cluster", "--markers", "t-test"],
    "seurat_v3": ["--flavor", "seurat_v3", "--n-top-genes", "500", "--batch-key", "batch", "--groupby", "cluster"],
}  # fmt: skip
AFTER_PCA = ("obsm/", "varm/", "obsp/", "uns/pca", "uns/neighbors", "uns/umap", "uns/leiden", "obs/leiden")


@pytest.fixture(scope="module", params=OPTIONS)
def results(request: pytest.FixtureRequest, scwarp: Run, simulated: Path, tmp_path_factory: pytest.TempPathFactory):
    reason = json.loads(scwarp("doctor", "--json").stdout)["facts"]["CUDA"]
    if not reason.startswith("usable"):
        pytest.skip(f"no CUDA device: {reason}")
    folder = tmp_path_factory.mktemp("devices")
    paths = [folder / "cpu.h5ad", folder / "cuda.h5ad", folder / "again.h5ad"]
    for path, device in zip(paths, ["cpu", "cuda", "cuda"], strict=True):
        scwarp("run", simulated, "-o", path, "--device", device, *OPTIONS[request.param])
    return paths


def test_the_same_bits_up_to_the_pca_and_in_the_markers(results: list[Path]) -> None:
    apart = [d for d in differences(results[0], results[1]) if not d.startswith(AFTER_PCA)]
    assert apart == []


def test_close_from_the_pca_on(results: list[Path]) -> None:
    cpu, cuda = (ad.read_h5ad(p) for p in results[:2])
    scores = cpu.obsm["X_pca"], cuda.obsm["X_pca"]
    np.testing.assert_allclose(scores[1], scores[0], atol=1e-3 * np.abs(scores[0]).max())
    np.testing.assert_allclose(cuda.uns["pca"]["variance"], cpu.uns["pca"]["variance"], rtol=1e-4)
    edges = [a.obsp["connectivities"].astype(bool) for a in (cpu, cuda)]
    assert (edges[0] != edges[1]).nnz < 0.002 * edges[0].nnz
    for a in (cpu, cuda):
        assert np.isfinite(a.obsm["X_umap"]).all() and np.ptp(a.obsm["X_umap"], axis=0).min() > 1
    from sklearn.metrics import adjusted_rand_score

    assert adjusted_rand_score(cpu.obs["leiden"], cuda.obs["leiden"]) > 0.98


def test_the_same_file_on_every_run(results: list[Path]) -> None:
    assert differences(results[1], results[2]) == []


def test_auto_takes_the_gpu(scwarp: Run, simulated: Path, tmp_path: Path) -> None:
    if not json.loads(scwarp("doctor", "--json").stdout)["facts"]["CUDA"].startswith("usable"):
        pytest.skip("no CUDA device")
    out = scwarp("run", simulated, "-o", tmp_path / "o.h5ad", "--verbose")
    assert "runs on cuda:0" in out.stdout + out.stderr


def test_a_quarter_of_the_memory_streams_to_the_same_file(scwarp: Run, tmp_path: Path) -> None:
    if not json.loads(scwarp("doctor", "--json").stdout)["facts"]["CUDA"].startswith("usable"):
        pytest.skip("no CUDA device")
    data = tmp_path / "data.h5ad"
    scwarp("simulate", "-o", data, "--n-cells", "20000", "--n-genes", "6000", "--mean-counts", "6000")
    options = ["--device", "cuda", "--n-top-genes", "400", "--regress-out", "total_counts,pct_counts_mt", "--json"]
    options += ["--umap-epochs", "50", "--compression", "none"]

    def run(path: Path, *more: str) -> dict[str, int]:
        events = [json.loads(line) for line in scwarp("run", data, "-o", path, *options, *more).stdout.splitlines()]
        return {e["step"]: e for e in events if e["event"] == "done" and "step" in e}

    resident = run(tmp_path / "resident.h5ad")
    assert "X is on cuda" in resident["upload"]["summary"]
    need = max(e["peak_bytes"] for e in resident.values() if e["step"] not in ("read", "write"))
    streamed = run(tmp_path / "streamed.h5ad", "--memory-limit", str(need // 4))
    assert "streamed" in streamed["upload"]["summary"]
    assert all(e["peak_bytes"] <= need // 4 for e in streamed.values() if e["step"] not in ("read", "write"))
    assert differences(tmp_path / "resident.h5ad", tmp_path / "streamed.h5ad") == []
