"""Estimates of memory against the measured peaks on the CPU: never below, and at most 10 % + 2 MiB above."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pytest
import scipy.sparse as sp
from estimate_cases import CASES, GRAPH_CASES, SLACK, Data, applicable, estimate, graph, graph_estimate, peak_of

import scwarp as scw
from scwarp._context import make_context

THREADS = 2
SHAPES = [(20000, 1000, 0.05), (2000, 3000, 0.1)]


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


@pytest.mark.parametrize("case", GRAPH_CASES, ids=str)
def test_graphs(case):
    for n, k in ((3000, 10), (9000, 8), (30000, 15)):
        g = graph(n, k)
        peak = peak_of("cpu", lambda g=g: case.call(context(), g))
        figure = graph_estimate(case, g, "cpu", THREADS)
        assert peak <= figure <= case.factor * peak + SLACK, (n, k)


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
    steps = scw.memory.estimate(a)
    assert next(iter(steps)) == "read" and steps["PCA"] > 0
    assert scw.memory.estimate(a, device="cuda")["PCA"] > steps["PCA"]
