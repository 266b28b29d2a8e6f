"""The Python pipeline and the program write the same h5ad: every object, attribute, dtype and bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from program import Run

scw = pytest.importorskip("scwarp")
h5py = pytest.importorskip("h5py")


def contents(path: Path) -> dict[str, tuple[Any, ...]]:
    out: dict[str, tuple[Any, ...]] = {}

    def visit(name: str, node: Any) -> None:
        attributes = {k: v.tolist() if hasattr(v, "tolist") else v for k, v in node.attrs.items()}
        if isinstance(node, h5py.Dataset):
            value = np.asarray(node[()])
            data = value.tolist() if value.dtype.kind == "O" or value.dtype.names else value.tobytes()
            out[name] = (attributes, str(node.dtype), node.shape, data)
        else:
            out[name] = (attributes,)

    with h5py.File(path) as file:
        file.visititems(visit)
    return out


def assert_same(program: Path, python: Path) -> None:
    a, b = contents(program), contents(python)
    assert sorted(a) == sorted(b)
    for name, value in a.items():
        assert value[0] == b[name][0], f"attributes of {name}"
        assert value[1:3] == b[name][1:3], f"type and shape of {name}"
        assert value[3:] == b[name][3:], f"values of {name}"


def pipeline(
    path: Path,
    *,
    max_pct_mt: float = 20,
    flavor: str = "seurat",
    n_top_genes: int = 2000,
    batch_key: str | None = None,
    regress_out: list[str] | None = None,
    scaling: str = "implicit",
    n_comps: int = 50,
    resolution: Any = 1.0,
    groups: str = "leiden",
    method: str = "wilcoxon",
    pts: bool = True,
    seed: int = 0,
) -> Any:
    """What the program does, in Python."""
    a = scw.read_h5ad(path)
    a.var["mt"] = a.var_names.str.startswith(("MT-", "mt-"))
    scw.pp.calculate_qc_metrics(a, qc_vars=["mt"], percent_top=(50, 100, 200, 500), inplace=True)
    scw.pp.filter_cells(a, min_genes=200)
    a = a[a.obs["pct_counts_mt"] <= max_pct_mt].copy()
    scw.pp.filter_genes(a, min_cells=3)
    variable = {"flavor": flavor, "n_top_genes": n_top_genes, "batch_key": batch_key}
    if flavor.startswith("seurat_v3"):
        scw.pp.highly_variable_genes(a, **variable)
    a.layers["counts"] = a.X.copy()
    scw.pp.normalize_total(a)
    scw.pp.log1p(a)
    if not flavor.startswith("seurat_v3"):
        scw.pp.highly_variable_genes(a, **variable)
    if regress_out or scaling == "explicit":
        a.raw = a
        a = a[:, a.var["highly_variable"]].copy()
        if regress_out:
            scw.pp.regress_out(a, regress_out)
        if scaling == "explicit":
            scw.pp.scale(a, max_value=10)
    implicit = {"scale": True, "max_value": 10} if scaling == "implicit" else {}
    scw.pp.pca(a, n_comps=n_comps, random_state=seed, **implicit)
    scw.pp.neighbors(a, random_state=seed)
    scw.tl.umap(a, random_state=seed)
    scw.tl.leiden(a, resolution, random_state=seed)
    scw.tl.rank_genes_groups(a, groups, method=method, pts=pts)
    return a


CASES = {
    "default": ((), {}),
    "several resolutions, seed": (
        ("-r", "0.4,1.0,1.2", "--seed", 7),
        {"resolution": [0.4, 1.0, 1.2], "groups": "leiden_1.0", "seed": 7},
    ),
    "explicit": (
        ("--scaling", "explicit", "--regress-out", "total_counts,pct_counts_mt", "--markers", "t-test", "--no-pts"),
        {"scaling": "explicit", "regress_out": ["total_counts", "pct_counts_mt"], "method": "t-test", "pts": False},
    ),
    "counts flavor": (("--flavor", "seurat_v3", "--scaling", "none"), {"flavor": "seurat_v3", "scaling": "none"}),
    "batches": (
        ("--batch-key", "batch", "--flavor", "cell_ranger", "--regress-out", "batch"),
        {"batch_key": "batch", "flavor": "cell_ranger", "regress_out": ["batch"]},
    ),
}


@pytest.fixture(scope="module")
def two_batches(scwarp: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "batches.h5ad"
    scwarp("simulate", "-o", path, "--n-cells", 700, "--n-genes", 2500, "--n-batches", 2, "--mean-counts", 2000)
    return path


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", CASES)
def test_simulated(scwarp: Run, two_batches: Path, tmp_path: Path, case: str) -> None:
    flags, options = CASES[case]
    few = ("--n-top-genes", 600, "--n-comps", 30)
    scwarp("run", two_batches, "-o", tmp_path / "program.h5ad", *few, *flags)
    a = pipeline(two_batches, n_top_genes=600, n_comps=30, **options)
    a.write_h5ad(tmp_path / "python.h5ad")
    assert_same(tmp_path / "program.h5ad", tmp_path / "python.h5ad")


@pytest.mark.filterwarnings("ignore")
def test_pbmc3k(scwarp: Run, shared_data: Path, tmp_path: Path) -> None:
    path = shared_data / "pbmc3k" / "pbmc3k_raw.h5ad"
    scwarp("run", path, "-o", tmp_path / "program.h5ad", "--max-pct-mt", 5)
    pipeline(path, max_pct_mt=5).write_h5ad(tmp_path / "python.h5ad")
    assert_same(tmp_path / "program.h5ad", tmp_path / "python.h5ad")
