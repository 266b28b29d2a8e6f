"""More than 2**31 entries: offsets are 64-bit all the way. Needs 60 GB of free device memory."""

from __future__ import annotations

import numpy as np
import pytest

import scwarp as scw
from scwarp import _core
from scwarp._context import make_context

cp = pytest.importorskip("cupy", reason="CuPy is not installed")
if scw._core.unavailable_reason("cuda"):
    pytest.skip("no CUDA device: " + scw._core.unavailable_reason("cuda"), allow_module_level=True)
if cp.cuda.runtime.memGetInfo()[0] < 60e9:
    pytest.skip("needs 60 GB of free device memory", allow_module_level=True)

N, PER_ROW, M = 1_100_000, 2000, 4000
COLUMNS = np.arange(PER_ROW, dtype=np.int32) * 2
VALUES = (np.arange(PER_ROW) % 7 + 1).astype(np.float32)


@pytest.fixture(scope="module")
def packed():
    """Every row has the same 2000 entries: 2.2e9 of them."""
    indptr = cp.arange(N + 1, dtype=cp.int64) * PER_ROW
    yield indptr, cp.tile(cp.asarray(COLUMNS), N), cp.tile(cp.asarray(VALUES), N), M
    cp.get_default_memory_pool().free_all_blocks()


@pytest.fixture
def ctx():
    return make_context(cp.zeros(1), op="test")


def test_subset(ctx, packed):
    genes = np.zeros(M, np.uint8)
    genes[: M - 8] = 1
    cells = np.ones(N, np.uint8)
    cells[::1000] = 0
    indptr, indices, data = _core.pp.subset(ctx, packed, cells, genes)
    rows, width = int(cells.sum()), PER_ROW - 4
    assert int(indptr[-1]) == rows * width > 2**31
    assert bool((indices.reshape(rows, width) == cp.asarray(COLUMNS[:width])).all())
    assert bool((data.reshape(rows, width) == cp.asarray(VALUES[:width])).all())


def test_group_sums_and_scores(ctx, packed):
    codes = (np.arange(N) % 3).astype(np.int32)
    r = _core.get.aggregate(ctx, packed, codes, 3, ["sum", "count_nonzero", "var"], 1)
    sizes = np.bincount(codes)
    want = np.zeros((3, M))
    want[:, COLUMNS] = sizes[:, None] * VALUES
    np.testing.assert_array_equal(r["sum"], want)
    np.testing.assert_array_equal(r["count_nonzero"], (want > 0) * sizes[:, None])
    np.testing.assert_array_equal(r["var"], 0)
    score = _core.tl.score_genes(ctx, packed, [0, 2, M - 2], [4])
    assert score.shape == (N,)
    np.testing.assert_array_equal(score, score[0])
    a, b, c, d = (float(VALUES[k]) for k in (0, 1, -1, 2))
    assert score[0] == (a + b + c) / 3 - d


def test_scale_in_place(ctx, packed):
    indptr, indices, data, m = packed
    data = data.copy()
    data[-1] += 1  # one gene that varies, in the last row
    _, std = _core.pp.scale(ctx, (indptr, indices, data, m), False, None, None)
    std = std.get()
    assert std[COLUMNS[-1]] == pytest.approx(1 / np.sqrt(N), rel=1e-6)
    assert bool((data.reshape(N, PER_ROW)[:, :-1] == cp.asarray(VALUES[:-1])).all())
    assert float(data[-1]) == pytest.approx((VALUES[-1] + 1) * np.sqrt(N), rel=1e-6)
    assert float(data[PER_ROW - 1]) == pytest.approx(VALUES[-1] * np.sqrt(N), rel=1e-6)


def test_dense_results(ctx, packed):
    """4.4e9 elements in float32."""
    keys = np.column_stack([np.arange(N) % 11, np.arange(N) % 13]).astype(np.float64)
    dense, used = _core.pp.regress_out_to_dense(ctx, packed, keys)
    assert used == 2 and dense.size > 2**32
    assert float(abs(dense).max()) < 1e-5  # genes are constant
    del dense
    dense, _, _ = _core.pp.scale_to_dense(ctx, packed, False, None, None)
    assert bool((dense[:, 1::2] == 0).all()) and bool((dense[-1, ::2] == cp.asarray(VALUES)).all())
