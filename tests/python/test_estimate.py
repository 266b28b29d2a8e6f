"""Estimates of memory against the measured peaks on the CPU: never below, and at most 10 % + 2 MiB above."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pytest
import scipy.sparse as sp
from estimate_cases import (
    CASES,
    GRAPH_CASES,
    IN_FILE,
    SLACK,
    Data,
    applicable,
    estimate,
    graph,
    graph_estimate,
    peak_of,
)

import scwarp as scw
from scwarp._context import make_context

THREADS = 2
SHAPES = [(20000, 1000, 0.05), (2000, 3000, 0.1)]
FILES = [
    (20000, 1000, 0.05, "float32", True),
    (6000, 1500, 0.2, "float64", True),
    (20000, 700, 0.1, "float32", False),
    (5000, 400, 0.5, "float64", False),
]


@pytest.fixture(autouse=True)
def two_threads(monkeypatch):
    monkeypatch.setattr(scw.settings, "n_threads", THREADS)


def context():
    return make_context(np.zeros(1), op="test", device="cpu")


@pytest.mark.parametrize("case", CASES, ids=str)
def test_operations(case):
    for n, m, density, dtype, sparse in applicable(case, SHAPES):
        d = Data(n, m, density, dtype, sparse, "cpu")
        peak = peak_of("cpu", lambda d=d: case.call(context(), d))
        figure = estimate(case, d, THREADS)
        assert peak <= figure <= 1.1 * peak + SLACK, (n, m, dtype, sparse)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("files")


@pytest.mark.parametrize("case", IN_FILE, ids=str)
def test_matrices_in_files(case, folder):
    """One block, blocks of as many rows as a tile of the PCA has, of fewer."""
    for n, m, density, dtype, sparse in FILES:
        resident = Data(n, m, density, dtype, sparse, "cpu")
        for block_bytes in (0, 1_700_000, 400_000):
            d = resident.from_file(folder / f"{n}-{m}-{dtype}.h5ad", block_bytes)
            figure = estimate(case, d, THREADS)
            with scw.settings.override(block_bytes=block_bytes or None):
                peak = peak_of("cpu", lambda d=d: case.call(context(), d))
            assert peak <= figure <= 1.1 * peak + SLACK, (n, m, dtype, sparse, block_bytes)


@pytest.mark.parametrize("case", GRAPH_CASES, ids=str)
def test_graphs(case):
    for n, k in ((3000, 10), (9000, 8), (30000, 15)):
        g = graph(n, k)
        peak = peak_of("cpu", lambda g=g: case.call(context(), g))
        figure = graph_estimate(case, g, "cpu", THREADS)
        assert peak <= figure <= case.factor * peak + SLACK, (n, k)


def test_by_name_on_disk(tmp_path):
    x = sp.random(5000, 300, 0.2, format="csr", dtype=np.float32, random_state=1)
    a = ad.AnnData(x)
    a.write_h5ad(tmp_path / "a.h5ad")
    b = scw.read_h5ad(tmp_path / "a.h5ad", backed="r")

    def both(op, **sizes):
        return [scw.memory.estimate(d, op, device="cpu", **sizes)["peak"] for d in (a, b)]

    resident, streamed = both("pp.filter_cells")
    assert streamed >= resident + x.nnz * 8
    assert both("pp.log1p") == [0, 0] and both("pp.normalize_total", target_sum=1e4)[1] == 0
    with scw.settings.override(block_bytes="100KiB"):
        small = scw.memory.estimate(b, "pp.filter_cells", device="cpu")["peak"]
        assert resident + 50_000 < small < resident + 200_000
        whole = scw.memory.estimate(b, "pp.pca", device="cpu", n_comps=5)["peak"]
        kept = b[:, :100].copy()
        assert 0 < scw.memory.estimate(kept, "pp.pca", device="cpu", n_comps=5)["peak"] < whole
    a.X = a.X.astype(np.int32)
    a.write_h5ad(tmp_path / "i.h5ad")
    i = scw.read_h5ad(tmp_path / "i.h5ad", backed="r")
    assert scw.memory.estimate(i, "pp.filter_cells", device="cpu")["peak"] == streamed
    # On a device: two blocks, or the matrix, which then is uploaded.
    streamed, uploaded = (scw.memory.estimate(d, "pp.pca", device="cuda", n_comps=5)["peak"] for d in (b, a))
    assert streamed == uploaded  # one block


def test_by_name():
    a = ad.AnnData(sp.random(500, 80, 0.2, format="csr", dtype=np.float32, random_state=1))
    assert scw.memory.estimate(a, "pp.log1p") == {"peak": 0, "kept": 0}
    small = scw.memory.estimate(a, "pp.pca", n_comps=5)
    large = scw.memory.estimate(a, "pp.pca", n_comps=30)
    assert large["peak"] >= small["peak"] > small["kept"] >= 500 * 5 * 4
    assert large["kept"] > small["kept"]
    assert scw.memory.estimate(a, "pp.pca", n_comps=5, device="cuda")["peak"] > small["peak"]  # no device is needed
    with pytest.raises(ValueError, match=r"no estimate for 'pp.other'"):
        scw.memory.estimate(a, "pp.other")
    with pytest.raises(ValueError, match=r"'pp.pca' has no size option 'n_groups'"):
        scw.memory.estimate(a, "pp.pca", n_groups=3)
    for op, sizes, text in (
        ("pp.pca", {"n_comps": "x"}, r"n_comps must be an integer \(got 'x'\)"),
        ("pp.pca", {"n_comps": 5.5}, r"n_comps must be an integer \(got 5.5\)"),
        ("pp.pca", {"n_comps": -1}, r"n_comps must not be negative \(got -1\)"),
        ("pp.pca", {"scale": "x"}, "scale must be True or False"),
        ("pp.neighbors", {"n_neighbors": -3}, "n_neighbors must not be negative"),
        ("pp.normalize_total", {"target_sum": "x"}, "target_sum must be a number"),
        ("tl.rank_genes_groups", {"method": "foo"}, r"method must be one of t-test, .*logreg \(got 'foo'\)"),
        ("tl.rank_genes_groups", {"method": 3}, "method must be a name"),
        ("pp.highly_variable_genes", {"flavor": "foo"}, "flavor must be one of seurat, "),
    ):
        with pytest.raises(ValueError, match=f"memory.estimate: {text}"):
            scw.memory.estimate(a, op, device="cpu", **sizes)
    scw.memory.estimate(a, "pp.pca", n_comps=np.int64(5), scale=True)
    steps = scw.memory.estimate(a)
    assert next(iter(steps)) == "read" and steps["PCA"] > 0
    assert scw.memory.estimate(a, device="cuda")["PCA"] > steps["PCA"]


def test_of_streams_to_a_device():
    """Needs no device: two blocks count, and what is made of one block at a time."""
    a = ad.AnnData(sp.random(20000, 500, 0.2, format="csr", dtype=np.float32, random_state=1))
    one_pass = scw.memory.estimate(a, "pp.log1p", device="cuda")["peak"]
    assert a.X.data.nbytes < one_pass < 1.1 * a.X.data.nbytes
    whole = scw.memory.estimate(a, "pp.filter_genes", device="cuda")["peak"]
    assert whole > 2 * a.X.data.nbytes
    with scw.settings.override(block_bytes="1MB"):
        assert 0.9e6 < scw.memory.estimate(a, "pp.log1p", device="cuda")["peak"] < 1.1e6
        assert 1.9e6 < scw.memory.estimate(a, "pp.filter_genes", device="cuda")["peak"] < 2.5e6
