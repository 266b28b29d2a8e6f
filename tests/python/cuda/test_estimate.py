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

Key = tuple[int, int, float, str, bool]
_data: dict[tuple[Key, str], Data] = {}


def made(key: Key, device: str) -> Data:
    """Matrices are made once: a few GB of counts."""
    if (key, device) not in _data:
        _data[key, device] = Data(*key, device, np if device == "cpu" else cp)
    return _data[key, device]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_operations(case):
    shapes = [(300000, 50, 1.0)] if case.op == "pp.neighbors" else None
    keys = [*applicable(case, SHAPES), *((n, m, d, "float32", False) for n, m, d in shapes or ())]
    wrong = []
    for key in keys:
        d = made(key, "cuda:0")
        peak = peak_of("cuda:0", lambda d=d: case.call(make_context(cp.zeros(1), op="test"), d))
        figure = estimate(case, d, 1)
        if not peak <= figure <= case.factor * peak + SLACK:
            wrong.append(f"{key}: measured {peak}, estimated {figure}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("case", STREAMED, ids=str)
def test_matrices_on_the_host(case):
    """Blocks of a few MB, less than the tiles of the PCA, and those for a limit somewhat larger than the matrix."""
    wrong = []
    for key in applicable(case, SHAPES[1:]):
        resident = made(key, "cpu")
        for block_bytes, limit in ((6_000_000, None), (1_000_000, None), (None, resident.bytes * 3 // 2)):
            d = resident.on_host(block_bytes or 0, limit or 0)
            figure = estimate(case, d, 1)
            with scw.settings.override(block_bytes=block_bytes), scw.memory.configured(limit=limit):
                context = make_context(np.zeros(1), op="pp.log1p", device="cuda")
                if limit and figure > 1.1 * limit:
                    with pytest.raises(MemoryError, match="limit"):
                        case.call(context, d)
                elif not limit or figure <= limit:
                    peak = peak_of("cuda:0", lambda d=d, context=context: case.call(context, d))
                    if not peak <= figure <= case.factor * peak + SLACK:
                        wrong.append(
                            f"{key}, block_bytes {block_bytes}, limit {limit}: measured {peak}, estimated {figure}"
                        )
            scw.memory.free()
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
