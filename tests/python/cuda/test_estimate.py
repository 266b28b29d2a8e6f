"""Estimates of memory against the measured peaks on the device: never below, and at most 10 % + 2 MiB above."""

from __future__ import annotations

import numpy as np
import pytest
from estimate_cases import (
    CASES,
    GRAPH_CASES,
    SHAPES,
    SLACK,
    STREAMED,
    Data,
    applicable,
    estimate,
    graph,
    graph_estimate,
    peak_of,
)
from gpu import cp

import scwarp as scw
from scwarp._context import make_context

_data: dict[tuple, Data] = {}


def on_device(key: tuple[int, int, float, str, bool]) -> Data:
    """Matrices are made once: a few GB of counts."""
    if key not in _data:
        _data[key] = Data(*key, "cuda:0", cp)
    return _data[key]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_operations(case):
    shapes = [(300000, 50, 1.0)] if case.op == "pp.neighbors" else None
    keys = [*applicable(case, SHAPES), *((n, m, d, "float32", False) for n, m, d in shapes or ())]
    wrong = []
    for key in keys:
        d = on_device(key)
        peak = peak_of("cuda:0", lambda d=d: case.call(make_context(cp.zeros(1), op="test"), d))
        figure = estimate(case, d, 1)
        if not peak <= figure <= case.factor * peak + SLACK:
            wrong.append(f"{key}: measured {peak}, estimated {figure}")
    assert not wrong, "\n".join(wrong)


HOST_SHAPES = [(60000, 1000, 0.1), (3000, 7000, 0.1)]
_host_data: dict[tuple, Data] = {}


def on_host(key: tuple[int, int, float, str, bool]) -> Data:
    if key not in _host_data:
        _host_data[key] = Data(*key, "cpu")
    return _host_data[key]


@pytest.mark.parametrize("case", STREAMED, ids=str)
def test_matrices_on_the_host(case):
    """Blocks of a few MB, tiles of the PCA and less, and a limit somewhat larger than the matrix."""
    wrong = []
    for key in applicable(case, HOST_SHAPES):
        resident = on_host(key)
        size = resident.nnz * (
            (4 if resident.sparse else 0) + resident.arg[2 if resident.sparse else ...].dtype.itemsize
        )
        for block_bytes, limit in ((6_000_000, 0), (1_000_000, 0), (0, size + size // 2)):
            d = resident.on_host(block_bytes, limit)
            figure = estimate(case, d, 1)
            if limit and figure > limit:
                continue  # the operation says so
            with scw.settings.override(block_bytes=block_bytes or None), scw.memory.configured(limit=limit or None):
                peak = peak_of("cuda:0", lambda d=d: case.call(make_context(np.zeros(1), op="test", device="cuda"), d))
            scw.memory.free()
            if not peak <= figure <= case.factor * peak + SLACK:
                wrong.append(f"{key}, blocks of {block_bytes}, limit {limit}: measured {peak}, estimated {figure}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("case", GRAPH_CASES, ids=str)
def test_graphs(case):
    wrong = []
    for n, k in ((20000, 8), (100000, 15), (400000, 10)):
        g = tuple(cp.asarray(a) if hasattr(a, "shape") else a for a in graph(n, k))
        peak = peak_of("cuda:0", lambda g=g: case.call(make_context(cp.zeros(1), op="test"), g))
        figure = graph_estimate(case, g, "cuda:0", 1)
        if not peak <= figure <= case.factor * peak + SLACK:
            wrong.append(f"{n} cells, {k} each way: measured {peak}, estimated {figure}")
    assert not wrong, "\n".join(wrong)
