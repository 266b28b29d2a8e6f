"""Estimates of memory against the measured peaks on the device: never below, and at most 10 % + 2 MiB above."""

from __future__ import annotations

import pytest
from estimate_cases import (
    CASES,
    GRAPH_CASES,
    SHAPES,
    SLACK,
    Data,
    applicable,
    estimate,
    graph,
    graph_estimate,
    peak_of,
)
from gpu import cp

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
