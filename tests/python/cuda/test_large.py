"""More than 2**31 and 2**32 entries: offsets are 64-bit all the way. Needs 100 GB of free device memory.

The large matrix is a small block of rows, repeated, and one more row with a single entry, so that it has 2**31 + 1 (or
2**32 + 1) non-zeros; what an operation must give for it follows from the block, computed on the CPU.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from gpu import cp, host
from scipy.stats import rankdata

import scwarp as scw
from scwarp import _core
from scwarp._context import make_context

if cp.cuda.runtime.memGetInfo()[1] < 130e9:
    pytest.skip("needs a device with 130 GB of memory", allow_module_level=True)

R, PER_ROW, M = 1024, 2048, 3000  # the block: 2**21 entries
LAST = 1234  # the column of the one entry, 1, of the last row
K31, K32 = 2**10, 2**11

_FILL = cp.RawKernel(
    r"""extern "C" __global__ void fill(unsigned* x, const unsigned* pattern, long long n, long long period) {
  for (long long i = blockIdx.x * (long long)blockDim.x + threadIdx.x; i < n; i += (long long)gridDim.x * blockDim.x)
    x[i] = pattern[i % period];
}""",
    "fill",
)
_DIFFER = cp.RawKernel(
    r"""extern "C" __global__ void differ(const float* x, const float* pattern, long long n, long long period,
                                      float tolerance, unsigned long long* found) {
  unsigned long long mine = 0;
  for (long long i = blockIdx.x * (long long)blockDim.x + threadIdx.x; i < n; i += (long long)gridDim.x * blockDim.x)
    mine += !(fabsf(x[i] - pattern[i % period]) <= tolerance);
  if (mine) atomicAdd(found, mine);
}""",
    "differ",
)


def repeated(pattern: np.ndarray, times: int, extra: int = 0) -> Any:
    """The pattern (4-byte numbers) `times` over, and `extra` more zeros, on the device."""
    p = cp.asarray(np.ascontiguousarray(pattern)).ravel()
    out = cp.zeros(p.size * times + extra, pattern.dtype)
    _FILL((2048,), (512,), (out, p, np.int64(p.size * times), np.int64(p.size)))
    return out


def assert_repeats(x: Any, pattern: np.ndarray, times: int, tolerance: float = 0.0) -> None:
    """x is a float32 array whose first `times` parts are all the pattern."""
    assert x.dtype == np.float32
    p = cp.asarray(np.ascontiguousarray(pattern, dtype=np.float32)).ravel()
    assert p.size * times <= x.size
    found = cp.zeros(1, np.uint64)
    _DIFFER((2048,), (512,), (x, p, np.int64(p.size * times), np.int64(p.size), np.float32(tolerance), found))
    assert int(found[0]) == 0, f"{int(found[0])} of {p.size * times} values differ"


def free_now() -> None:
    scw.memory.free()
    cp.get_default_memory_pool().free_all_blocks()


def cpu() -> Any:
    return make_context(np.zeros(1), op="test", device="cpu")


def gpu() -> Any:
    return make_context(cp.zeros(1), op="test")


class Block:
    """R cells of three kinds, counts of 1 to 9."""

    def __init__(self) -> None:
        r = np.random.default_rng(7)
        kind = np.arange(R) % 7 % 3
        weights = 1 + np.stack([np.arange(M) % 5 == g for g in range(3)]) * np.array([[3.0], [2.0], [1.0]])
        keys = r.random((R, M)) ** (1 / weights[kind])
        self.kind = kind.astype(np.int32)
        self.indices = np.sort(np.argsort(-keys, axis=1)[:, :PER_ROW], axis=1).astype(np.int32).ravel()
        self.indptr = np.arange(R + 1, dtype=np.int64) * PER_ROW
        boost = (self.indices % 5 == np.repeat(kind, PER_ROW)) * np.repeat(4 - kind, PER_ROW)
        self.data = (1 + r.integers(0, 5, R * PER_ROW) + boost).astype(np.float32)
        self.packed = (self.indptr, self.indices, self.data, M)

    def dense(self, width: int = M) -> np.ndarray:
        x = np.zeros((R, M), np.float32)
        x[np.repeat(np.arange(R), PER_ROW), self.indices] = self.data
        return np.ascontiguousarray(x[:, :width])


BLOCK = Block()


class Large:
    """The block k times and the last row, sparse or dense."""

    def __init__(self, k: int, width: int = 0) -> None:
        self.k, self.n = k, R * k + 1
        self.m = width or M
        self.is_dense = width > 0
        if self.is_dense:
            self.block: Any = BLOCK.dense(width)
            self.x = repeated(self.block, k, width).reshape(self.n, width)
            self.x[-1, LAST] = 1
            assert self.x.size > 2**31
        else:
            self.block = BLOCK.packed
            self.indptr = cp.arange(self.n + 1, dtype=cp.int64) * PER_ROW
            self.indptr[-1] = self.indptr[-2] + 1
            self.indices = repeated(BLOCK.indices, k, 1)
            self.indices[-1] = LAST
            self.data = repeated(BLOCK.data, k, 1)
            self.data[-1] = 1
            assert int(self.indptr[-1]) == self.data.size == R * PER_ROW * k + 1

    def arg(self, copy: bool = False) -> Any:
        if self.is_dense:
            return self.x.copy() if copy else self.x
        return self.indptr, self.indices, self.data.copy() if copy else self.data, self.m

    def with_last_row(self) -> Any:
        """The block once and the last row, on the host."""
        if self.is_dense:
            return np.concatenate([self.block, np.arange(self.m)[None] == LAST]).astype(np.float32)
        indptr = np.append(BLOCK.indptr, BLOCK.indptr[-1] + 1)
        return indptr, np.append(BLOCK.indices, np.int32(LAST)), np.append(BLOCK.data, np.float32(1)), M

    def block_copy(self) -> Any:
        return self.block.copy() if self.is_dense else (BLOCK.indptr, BLOCK.indices, BLOCK.data.copy(), M)

    def values(self, arg: Any) -> Any:
        return arg.ravel() if self.is_dense else arg[2]

    def codes(self) -> np.ndarray:
        """The kinds; the last row belongs to none."""
        return np.append(np.tile(BLOCK.kind, self.k), np.int32(-1))

    def per_cell(self, block: np.ndarray) -> np.ndarray:
        return np.tile(block, self.k)


@pytest.fixture(scope="module", params=["2**31+1", "2**32+1", "dense"])
def large(request: pytest.FixtureRequest) -> Any:
    made = Large(K31, 2200) if request.param == "dense" else Large(K31 if request.param == "2**31+1" else K32)
    yield made
    made.__dict__.clear()
    free_now()


@pytest.fixture(autouse=True)
def free() -> Any:
    yield
    free_now()


def at_last(m: int, value: float = 1) -> np.ndarray:
    out = np.zeros(m)
    out[LAST] = value
    return out


def test_qc_and_counts(large):
    family = (np.arange(large.m) % 5 == 1).astype(np.uint8)
    want = _core.pp.calculate_qc_metrics(cpu(), large.block, [family], [50])
    got = _core.pp.calculate_qc_metrics(gpu(), large.arg(), [cp.asarray(family)], [50])
    for w, g in [(want[0], got[0]), (want[1], got[1]), (want[2][0], got[2][0]), (want[3][0], got[3][0])]:
        np.testing.assert_array_equal(host(g)[:-1], large.per_cell(w))
    assert host(got[1])[-1] == host(got[0])[-1] == 1
    np.testing.assert_array_equal(host(got[4]), want[4] * large.k + at_last(large.m))
    np.testing.assert_array_equal(host(got[5]), want[5] * large.k + at_last(large.m))
    for w, g in zip(_core.pp.cell_counts(cpu(), large.block), _core.pp.cell_counts(gpu(), large.arg()), strict=True):
        np.testing.assert_array_equal(host(g)[:-1], large.per_cell(w))
    for w, g in zip(_core.pp.gene_counts(cpu(), large.block), _core.pp.gene_counts(gpu(), large.arg()), strict=True):
        np.testing.assert_array_equal(host(g), w * large.k + at_last(large.m))


def test_rows_in_place(large):
    """normalize_total, log1p and sqrt, one after the other."""
    want, got = large.block_copy(), large.arg(copy=True)
    for step in (
        lambda ctx, x: _core.pp.normalize_total(ctx, x, 1e4, False, 0.05),
        lambda ctx, x: _core.pp.log1p(ctx, x, None),
        lambda ctx, x: _core.pp.sqrt(ctx, x),
    ):
        step(cpu(), want)
        step(gpu(), got)
        assert_repeats(large.values(got), large.values(want), large.k)
    end = large.m - LAST if large.is_dense else 1
    assert float(large.values(got)[-end]) == pytest.approx(np.sqrt(np.log1p(1e4)), rel=1e-6)


def test_normalize_total_options(large):
    """The median as the target, which the last row moves to the lower middle; a gene that dominates the last row."""
    counts = _core.pp.cell_counts(cpu(), large.block)[0]
    target = float(np.sort(counts)[R // 2 - 1])
    want, got = large.block_copy(), large.arg(copy=True)
    sums, found, n_empty = _core.pp.normalize_total(gpu(), got, None, False, 0.05)
    assert found == target and n_empty == 0 and float(sums[-1]) == 1
    np.testing.assert_array_equal(host(sums)[:-1], large.per_cell(counts))
    _core.pp.normalize_total(cpu(), want, target, False, 0.05)
    assert_repeats(large.values(got), large.values(want), large.k)
    del got
    free_now()
    small, whole = large.with_last_row(), large.arg(copy=True)
    want = _core.pp.normalize_total(cpu(), small, 500.0, True, 3 / large.m)
    got = _core.pp.normalize_total(gpu(), whole, 500.0, True, 3 / large.m)
    assert float(got[0][-1]) == want[0][-1] == 0  # its only gene is left out
    np.testing.assert_array_equal(host(got[0])[:-1], large.per_cell(want[0][:-1]))
    size = small[:-1].size if large.is_dense else BLOCK.data.size
    assert_repeats(large.values(whole), large.values(small)[:size], large.k)


def test_moments(large):
    got = _core.pp.gene_moments(gpu(), large.arg())
    x = BLOCK.dense(large.m).astype(np.int64)
    sums, squares = x.sum(0) * large.k + at_last(large.m), (x * x).sum(0) * large.k + at_last(large.m)
    mean = sums / large.n
    np.testing.assert_array_equal(host(got[0]).ravel(), mean)
    np.testing.assert_allclose(
        host(got[1]).ravel(), (squares - sums * mean) / (large.n - 1), rtol=1e-9
    )  # the formula here cancels


def test_moments_of_groups(large):
    want = _core.pp.gene_moments(cpu(), large.block, BLOCK.kind, 3, 0, True)
    codes = cp.asarray(np.append(large.codes()[:-1], np.int32(2)))
    got = _core.pp.gene_moments(gpu(), large.arg(), codes, 3, 0, True)
    np.testing.assert_array_equal(host(got[2]), host(want[2]) * large.k + np.array([0, 0, 1]))
    for w, g in zip(want[:2], got[:2], strict=True):
        np.testing.assert_allclose(host(g)[:2], host(w)[:2], rtol=1e-9)
        np.testing.assert_allclose(host(g)[2], host(w)[2], rtol=1e-4)


@pytest.mark.parametrize("flavor", ["seurat", "cell_ranger", "seurat_v3"])
def test_variable_genes_of_batches(large, flavor):
    def run(ctx: Any, x: Any, batches: Any) -> Any:
        return _core.pp.highly_variable_genes(
            ctx, x, flavor, 300, 0.0125, 3, 0.5, np.inf, 20, 0.3, None, batches, 3, False, None, 100.0, None
        )

    codes = cp.asarray(np.append(large.codes()[:-1], np.int32(2)))
    want, got = run(cpu(), large.block, BLOCK.kind), run(gpu(), large.arg(), codes)
    np.testing.assert_allclose(got["means"], want["means"], rtol=1e-5)
    assert (host(got["highly_variable"]) & want["highly_variable"]).sum() >= 280  # ddof 1
    key = "variances_norm" if flavor == "seurat_v3" else "dispersions"
    np.testing.assert_allclose(got[key], want[key], rtol=1e-2)


@pytest.mark.parametrize("flavor", ["seurat", "cell_ranger", "seurat_v3"])
def test_highly_variable_genes(large, flavor):
    def run(ctx: Any, x: Any) -> Any:
        return _core.pp.highly_variable_genes(
            ctx, x, flavor, 300, 0.0125, 3, 0.5, np.inf, 20, 0.3, None, None, 0, False, None, 100.0, None
        )

    want, got = run(cpu(), large.block), run(gpu(), large.arg())
    np.testing.assert_allclose(got["means"], want["means"], rtol=1e-5)
    assert (host(got["highly_variable"]) & want["highly_variable"]).sum() >= 295  # one more cell; ddof 1
    key = "variances_norm" if flavor == "seurat_v3" else "dispersions"
    # In float64 the spread of n copies divides by n R - 1 instead of R - 1.
    np.testing.assert_allclose(got[key], want[key], rtol=3e-3)


def test_scale(large):
    want, got = large.block_copy(), large.arg(copy=True)
    _core.pp.scale(cpu(), want, large.is_dense, 10.0, None)
    _core.pp.scale(gpu(), got, large.is_dense, 10.0, None)
    tolerance = 1e-3 * float(np.abs(large.values(want)).max())  # ddof 1
    assert_repeats(large.values(got), large.values(want), large.k, tolerance)
    assert float(abs(large.values(got)[:PER_ROW]).max()) > 0.5


def test_scale_with_a_mask(large):
    mask = (np.arange(R) % 3 > 0).astype(np.uint8)
    want, got = large.block_copy(), large.arg(copy=True)
    mean, std = _core.pp.scale(cpu(), want, False, 5.0, mask)
    means, stds = _core.pp.scale(gpu(), got, False, 5.0, cp.asarray(np.append(np.tile(mask, large.k), np.uint8(0))))
    np.testing.assert_allclose(host(means), mean, rtol=1e-12)
    np.testing.assert_allclose(host(stds), std, rtol=1e-3)  # ddof 1
    rows = np.repeat(mask, large.m if large.is_dense else PER_ROW)
    changed = large.values(want).ravel() != large.values(large.block).ravel()
    assert changed[rows == 1].any() and not changed[rows == 0].any()
    assert_repeats(large.values(got), large.values(want), large.k, 5e-3)


def test_subset(large):
    cells = np.ones(R, np.uint8)
    cells[::100] = 0
    genes = (np.arange(large.m) % 300 != 7).astype(np.uint8)
    keep = np.append(np.tile(cells, large.k), np.uint8(1))
    want = _core.pp.subset(cpu(), large.block, cells, genes)
    got = _core.pp.subset(gpu(), large.arg(), keep, genes)
    if large.is_dense:
        assert got.shape == (int(keep.sum()), int(genes.sum()))
        return assert_repeats(got.ravel(), want, large.k)
    indptr, indices, data = got
    assert int(indptr[-1]) == data.size == want[2].size * large.k + 1 > 2**31 * 0.98
    ends = host(indptr)
    np.testing.assert_array_equal(np.diff(ends)[:-1], large.per_cell(np.diff(want[0])))
    assert_repeats(data, want[2], large.k)
    assert_repeats(indices.view(np.float32), want[1].view(np.float32), large.k)  # small integers: denormals compare


def test_csr_defects(large):
    if large.is_dense:
        pytest.skip("sparse only")
    assert _core.pp.csr_defects(gpu(), large.indptr, large.indices, large.m) == 0
    at = R * PER_ROW * large.k - 1  # the last entry of the last full row
    before = large.indices[at].copy()
    for value, defect in ((large.m, 2), (0, 1)):
        large.indices[at] = value
        assert _core.pp.csr_defects(gpu(), large.indptr, large.indices, large.m) == defect
    large.indices[at] = before


def test_scores_and_groups(large):
    genes, control = list(range(0, large.m, 3)), list(range(1, large.m, 4))
    want = _core.tl.score_genes(cpu(), large.block, genes, control)
    got = host(_core.tl.score_genes(gpu(), large.arg(), genes, control))
    np.testing.assert_array_equal(got[:-1], large.per_cell(want))
    functions = ["sum", "sq_sum", "count_nonzero", "mean"]
    want = _core.get.aggregate(cpu(), large.block, BLOCK.kind, 3, functions, 1)
    got = _core.get.aggregate(gpu(), large.arg(), large.codes(), 3, functions, 1)
    for f in functions:
        np.testing.assert_array_equal(got[f], want[f] * (1 if f == "mean" else large.k))
    want = _core.get.aggregate(cpu(), large.block, BLOCK.kind, 3, ["var"], 0)["var"]
    got = _core.get.aggregate(gpu(), large.arg(), large.codes(), 3, ["var"], 0)["var"]
    np.testing.assert_allclose(got, want, rtol=1e-9)


def test_medians(large):
    """The median of k copies is the median of one."""
    want = _core.get.aggregate(cpu(), large.block, BLOCK.kind, 3, ["median"], 1)["median"]
    got = _core.get.aggregate(gpu(), large.arg(), large.codes(), 3, ["median"], 1)["median"]
    assert len(np.unique(want)) > 5
    np.testing.assert_array_equal(got, want)


def test_means_beside_missing_values(large):
    small, block = large.block_copy(), large.values(large.block).ravel()
    holes = (np.arange(block.size) % 89 == 5) & (block == 1)
    large.values(small).ravel()[holes] = np.nan
    pattern = large.values(small).ravel()
    end = np.zeros(large.m if large.is_dense else 1, np.float32)
    end[LAST if large.is_dense else 0] = 1
    x = repeated(pattern, large.k, end.size)
    x[-end.size :] = cp.asarray(end)
    arg = x.reshape(large.n, large.m) if large.is_dense else (large.indptr, large.indices, x, large.m)
    columns = np.tile(np.arange(large.m), R) if large.is_dense else BLOCK.indices
    known = R - np.bincount(columns[holes], minlength=large.m)
    sums = np.bincount(columns, np.nan_to_num(pattern).astype(np.float64), large.m)
    want = (sums * large.k + at_last(large.m)) / (known * large.k + 1)
    np.testing.assert_allclose(host(_core.tl.nan_mean_of_genes(gpu(), arg)), want, rtol=1e-6)
    assert holes.any()


def rank(ctx: Any, x: Any, codes: np.ndarray, method: str, pts: bool = False) -> Any:
    """Groups 1 and 2 against group 0: the last row takes no part."""
    return _core.tl.rank_genes_groups(
        ctx, x, codes, 3, method=method, reference=0, corr_method="bonferroni", rankby_abs=False, pts=pts,
        mean_in_log_space=True, log_base=None, tie_correct=False, use_continuity=False, return_u_values=False,
        n_bins=100, bin_range=None,
    )  # fmt: skip


def test_t_test(large):
    got = rank(gpu(), large.arg(), large.codes(), "t-test")["scores"]
    x = BLOCK.dense(large.m).astype(np.float64)
    b = x[BLOCK.kind == 0]
    for row, g in enumerate((1, 2)):
        a = x[g == BLOCK.kind]
        spread = sum(v.var(0) * len(v) * large.k / (len(v) * large.k - 1) / (len(v) * large.k) for v in (a, b))
        np.testing.assert_allclose(got[row], (a.mean(0) - b.mean(0)) / np.sqrt(spread), rtol=1e-9)


def test_wilcoxon(large):
    got = rank(gpu(), large.arg(), large.codes(), "wilcoxon")["scores"]
    x, k = BLOCK.dense(large.m).astype(np.float64), large.k
    for row, g in enumerate((1, 2)):
        both = (g == BLOCK.kind) | (BLOCK.kind == 0)
        ranks = rankdata(x[both], axis=0)[g == BLOCK.kind[both]]
        n, size = int(both.sum()), len(ranks)
        # A value of rank r among n has the ranks k (r - 1/2) + 1/2 among k copies.
        total = k * (k * (ranks - 0.5) + 0.5).sum(0)
        spread = np.sqrt(float(k * size) * (k * (n - size)) * (k * n + 1) / 12)
        np.testing.assert_allclose(got[row], (total - k * size * (k * n + 1) / 2) / spread, rtol=1e-9, atol=1e-9)


def test_wilcoxon_binned(large):
    """Sums of ranks as above; the spread has no correction for ties either."""
    want = rank(cpu(), large.block, BLOCK.kind, "wilcoxon_binned", pts=True)
    got = rank(gpu(), large.arg(), large.codes(), "wilcoxon_binned", pts=True)
    for row, g in enumerate((1, 2)):
        n = int(((g == BLOCK.kind) | (BLOCK.kind == 0)).sum())
        ratio = large.k * np.sqrt((n + 1) / (large.k * n + 1))
        np.testing.assert_allclose(got["scores"][row], want["scores"][row] * ratio, rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(got["pts"], want["pts"])
    assert 0 < want["pts"].min() < want["pts"].max() <= 1


def test_logistic_regression(large):
    """k copies at strength c / k have the optimum of one copy at c."""
    c = 1e-5
    coefficients, intercepts, *_ = _core.tl.logistic_regression(
        gpu(), large.arg(), large.codes(), 3, c / large.k, 1e-4, 60, True
    )
    want, want_intercepts, *_ = _core.tl.logistic_regression(cpu(), large.block, BLOCK.kind, 3, c, 1e-4, 60, True)
    assert float(abs(want).max()) > 1e-4
    np.testing.assert_allclose(host(coefficients), want, atol=0.02 * float(abs(want).max()))
    np.testing.assert_allclose(intercepts, want_intercepts, atol=0.02)


def test_pca(large):
    def run(ctx: Any, x: Any) -> Any:
        return _core.pp.pca(ctx, x, 2, True, None, False, None, False, False)

    want, got = run(cpu(), large.block), run(gpu(), large.arg())
    ratio = large.k * (R - 1) / (large.n - 1)
    np.testing.assert_allclose(got["variance"], want["variance"] * ratio, rtol=1e-4)
    spread = float(np.sqrt(want["variance"][0]))
    scores = host(got["scores"])[:-1].reshape(large.k, R, 2)
    assert float(abs(scores - want["scores"]).max()) < 2e-3 * spread
    assert float(abs(want["scores"]).max()) > spread


def test_pca_of_scaled_genes(large):
    """Every other gene, divided by its standard deviation and clipped."""
    mask = (np.arange(large.m) % 2).astype(np.uint8)

    def run(ctx: Any, x: Any) -> Any:
        return _core.pp.pca(ctx, x, 2, True, mask, True, 10.0, False, False)

    want, got = run(cpu(), large.block), run(gpu(), large.arg())
    np.testing.assert_allclose(got["variance"], want["variance"], rtol=2e-3)  # ddof 1, twice
    scores = host(got["scores"])[:-1].reshape(large.k, R, 2)
    spread = float(np.sqrt(want["variance"][0]))
    assert float(abs(scores - want["scores"]).max()) < 5e-3 * spread
    assert float(abs(want["scores"]).max()) > spread


def test_fit_of_a_regression(large):
    keys = np.column_stack([np.arange(R) % 11, np.arange(R) % 13]).astype(np.float64)
    whole = np.concatenate([np.tile(keys, (large.k, 1)), keys.mean(0, keepdims=True)])
    want, used = _core.pp.fit_regression(cpu(), large.block, keys)
    got, used_too = _core.pp.fit_regression(gpu(), large.arg(), whole)
    assert used == used_too == 2
    np.testing.assert_allclose(host(got), want, atol=1e-4 * float(abs(want).max()))  # one more cell


def test_categories_in_place(large):
    if not large.is_dense:
        pytest.skip("dense only")
    want, got = large.block_copy(), large.arg(copy=True)
    codes = np.append(np.tile(BLOCK.kind, large.k), np.int32(0))
    _core.pp.regress_out_categories(cpu(), want, BLOCK.kind, 3)
    _core.pp.regress_out_categories(gpu(), got, cp.asarray(codes), 3)
    assert_repeats(got.ravel(), want, large.k, 1e-4)
    assert float(abs(got[0]).max()) > 1


def test_a_value_that_is_not_finite(large):
    """In the last cell: the search for neighbours looks at all before it starts."""
    x = large.arg(copy=True)
    large.values(x)[-1] = np.nan
    with pytest.raises(Exception, match=f"{large.n - 1}"):
        _core.pp.knn(gpu(), x, 15, "euclidean", 2.0, "brute")


def test_dense_results(large):
    """Sparse rows into dense results of 3.1e9 and 6.3e9 elements."""
    if large.is_dense:
        pytest.skip("sparse only")
    want, _, _ = _core.pp.scale_to_dense(cpu(), large.block, True, 10.0, None)
    got, _, _ = _core.pp.scale_to_dense(gpu(), large.arg(), True, 10.0, None)
    assert got.shape == (large.n, M) and got.size > 2**31
    assert_repeats(got.ravel(), want, large.k, 0.01)
    del got
    free_now()
    if large.k == K32:
        return  # the rest at 3.1e9
    out, want_out = [], []
    for ctx, x, results, k in ((cpu(), large.block, want_out, 1), (gpu(), large.arg(), out, large.k)):
        keys = np.column_stack([np.arange(R) % 11, np.arange(R) % 13]).astype(np.float64)
        keys = np.concatenate([np.tile(keys, (k, 1)), keys.mean(0, keepdims=True)]) if k > 1 else keys
        dense, used = _core.pp.regress_out_to_dense(ctx, x, keys)
        assert used == 2
        results.append(dense)
    assert_repeats(out[0].ravel(), want_out[0], large.k, 0.02)
    np.testing.assert_allclose(float(abs(out[0][0]).max()), float(abs(want_out[0][0]).max()), rtol=1e-3)
    again = _core.pp.regress_out(gpu(), out[0], keys)  # dense, in place: nothing is left to remove
    assert again == 2
    assert_repeats(out[0].ravel(), want_out[0], large.k, 0.02)
    out.clear()
    free_now()
    codes = np.append(np.tile(BLOCK.kind, large.k), np.int32(0))
    want_groups = _core.pp.regress_out_categories_to_dense(cpu(), large.block, BLOCK.kind, 3)
    got = _core.pp.regress_out_categories_to_dense(gpu(), large.arg(), cp.asarray(codes), 3)
    assert_repeats(got.ravel(), want_groups, large.k, 0.02)
    del got
    free_now()
    want_residuals = residuals(cpu(), large.block)
    got = residuals(gpu(), large.arg())
    assert_repeats(got.ravel(), want_residuals, large.k, 0.02)


def residuals(ctx: Any, x: Any) -> Any:
    return _core.pp.normalize_pearson_residuals(ctx, x, 100.0, 5.0)[0]


def test_rows_from_the_host():
    """The matrix of 2**31 + 1 entries stays on the host and streams: the bits of the matrix on the device."""
    made = Large(K31)
    qc = _core.pp.calculate_qc_metrics(gpu(), made.arg(), [cp.ones(M, cp.uint8)], [50])
    moments = _core.pp.gene_moments(gpu(), made.arg())
    qc, moments = [host(a) for a in (*qc[:2], *qc[2], *qc[3], *qc[4:])], [host(a) for a in moments]
    x = (made.indptr.get(), made.indices.get(), made.data.get(), M)
    codes = made.codes()
    made.__dict__.clear()
    free_now()
    ctx = make_context(x[2], op="pp.log1p", device="cuda")
    with scw.memory.configured(limit="8GB"):
        got = _core.pp.calculate_qc_metrics(ctx, x, [np.ones(M, np.uint8)], [50])
        for a, b in zip((*got[:2], *got[2], *got[3], *got[4:]), qc, strict=True):
            np.testing.assert_array_equal(host(a), b)
        for a, b in zip(_core.pp.gene_moments(ctx, x), moments, strict=True):
            np.testing.assert_array_equal(host(a), b)
        sums = _core.get.aggregate(ctx, x, codes, 3, ["sum"], 1)["sum"]
        one = _core.get.aggregate(cpu(), BLOCK.packed, BLOCK.kind, 3, ["sum"], 1)["sum"]
        np.testing.assert_array_equal(sums, one * K31)
        _core.pp.normalize_total(ctx, x, 1e4, False, 0.05)
        _core.pp.log1p(ctx, x, None)
        assert scw.memory.info()["peak"] <= 8e9
    block = (BLOCK.indptr, BLOCK.indices, BLOCK.data.copy(), M)
    _core.pp.normalize_total(cpu(), block, 1e4, False, 0.05)
    _core.pp.log1p(cpu(), block, None)
    assert (x[2][:-1].reshape(K31, -1) == block[2]).all()
    assert x[2][-1] == pytest.approx(np.log1p(1e4), rel=1e-6)


def test_all_distances_and_gauss_kernel():
    """Cells on a line, 1 apart: more than 2**31 distances, and weights that in the middle depend on the distance."""
    n, small, k = 46_400, 240, 12
    assert n * n > 2**31

    def line(n: int, xp: Any) -> Any:
        return xp.stack([xp.arange(n, dtype=xp.float32), xp.zeros(n, xp.float32)], axis=1)

    distances = _core.pp.pairwise_distances(gpu(), line(n, cp), "euclidean", 2.0)
    steps = cp.arange(n, dtype=cp.float32)
    for i in (0, 1, n // 2, 2**31 // n, n - 1):
        assert bool((distances[i] == abs(steps - i)).all())
    assert int((distances.sum(axis=1) == 0).sum()) == 0
    want = _core.pp.gauss_kernel(cpu(), _core.pp.pairwise_distances(cpu(), line(small, np), "euclidean", 2.0), k)
    got = _core.pp.gauss_kernel(gpu(), distances, k)
    assert got.size == n * n and want[0, 5] > 0
    np.testing.assert_array_equal(got[:20, :100].get(), want[:20, :100])
    np.testing.assert_array_equal(got[-20:, -100:].get(), want[-20:, -100:])
    for i in (1000, n // 2, 2**31 // n, n - 200):
        np.testing.assert_array_equal(got[i, i - 100 : i + 100].get(), want[120, 20:220])
        assert float(got[i, : i - 200].max()) == 0


def test_transfer_of_more_than_2_to_the_31_elements():
    x = np.zeros((2**16, 2**15 + 1), np.float32)
    x[-1, -5:] = np.arange(5)
    x[0, 0] = 7
    on_device = scw.get.X_to_GPU(x)
    assert on_device.shape == x.shape and float(on_device[0, 0]) == 7
    np.testing.assert_array_equal(on_device[-1, -5:].get(), np.arange(5))
    on_device[-2, -1] = 3
    back = scw.get.X_to_CPU(on_device)
    assert back.size > 2**31 and back[-2, -1] == 3 and back[0, 0] == 7 and back[-1, -1] == 4


def test_connectivities_of_more_than_2_to_the_31_edges():
    """Cells on a ring, each with the 14 cells after it: every row of the graph is like any other."""
    k = 15
    n = 2**31 // k + 1
    assert n * k > 2**31

    def lists(n: int, xp: Any) -> Any:
        distances = np.arange(k, dtype=np.float32) / 4 + (np.arange(k) > 0)
        cells = xp.arange(n, dtype=xp.int32)
        indices = xp.empty((n, k), xp.int32)
        for j in range(k):  # a column at a time: no temporary matrix
            indices[:, j] = (cells + j) % n
        return indices.ravel(), xp.tile(xp.asarray(distances), n) if xp is np else repeated(distances, n)

    want = _core.pp.connectivities(cpu(), *lists(200, np), 200, k, "umap", "euclidean")
    indptr, indices, data = _core.pp.connectivities(gpu(), *lists(n, cp), n, k, "umap", "euclidean")
    width = 2 * (k - 1)
    assert int(indptr[-1]) == data.size == n * width > 2**31
    middle = [0, 100, n // 2, 2**31 // width, n - 100]
    weights = np.sort(want[2][100 * width : 101 * width])
    for cell in middle:
        row = slice(cell * width, (cell + 1) * width)
        near = np.sort((np.arange(cell - k + 1, cell + k) % n)[np.arange(2 * k - 1) != k - 1])
        np.testing.assert_array_equal(indices[row].get(), near)
        np.testing.assert_array_equal(np.sort(data[row].get()), weights)


def test_distance_graph_of_more_than_2_to_the_31_entries():
    """Lists of 15 on a ring: the 14 others of every cell, nearest first."""
    k = 15
    n = 2**31 // (k - 1) + 1
    indices = cp.empty((n, k), cp.int32)
    cells = cp.arange(n, dtype=cp.int32)
    for j in range(k):
        indices[:, j] = (cells + j) % n
    distances = repeated(np.arange(k, dtype=np.float32), n)
    indptr, columns, data = _core.pp.distance_graph(gpu(), indices.ravel(), distances, n, k)
    del indices, distances
    width = k - 1
    assert int(indptr[-1]) == data.size == n * width > 2**31
    for cell in (0, n // 2, 2**31 // width, n - 10, n - 1):
        row = slice(cell * width, (cell + 1) * width)
        near = (cell + 1 + np.arange(width)) % n
        np.testing.assert_array_equal(columns[row].get(), near)
        np.testing.assert_array_equal(data[row].get(), np.arange(1, k))


CLIQUE = 1024


def cliques(n_cliques: int, upper: bool = False) -> tuple[Any, Any, Any, int]:
    """Disjoint cliques, every edge of weight 1; upper: each edge in one direction only."""
    n = CLIQUE * n_cliques
    inside = np.arange(CLIQUE)
    pattern = np.concatenate([inside[inside > i] if upper else inside[inside != i] for i in range(CLIQUE)])
    indices = repeated(pattern.astype(np.int32), n_cliques).reshape(n_cliques, -1)
    indices += cp.arange(n_cliques, dtype=cp.int32)[:, None] * CLIQUE
    data = cp.ones(indices.size, cp.float32)
    widths = CLIQUE - 1 - inside if upper else np.full(CLIQUE, CLIQUE - 1)
    starts = cp.arange(n_cliques, dtype=cp.int64)[:, None] * pattern.size + cp.asarray(np.cumsum(widths) - widths)
    return cp.append(starts.ravel(), n_cliques * pattern.size), indices.ravel(), data, n


def assert_cliques_found(graph: Any) -> int:
    """Returns the bytes of the device that Leiden held."""
    n_cliques = graph[3] // CLIQUE
    cp.cuda.Device(0).synchronize()
    cp.get_default_memory_pool().free_all_blocks()
    before = _core.memory.info("cuda:0")["used"]
    labels, modularity, sizes, *_ = _core.tl.leiden(gpu(), graph, [1.0], -1, True, 0.05, 1)[0]
    peak = _core.memory.info("cuda:0")["peak"] - before
    np.testing.assert_array_equal(sizes, np.full(n_cliques, CLIQUE))
    np.testing.assert_array_equal(host(labels), np.repeat(np.arange(n_cliques), CLIQUE))
    assert modularity == pytest.approx(1 - 1 / n_cliques, rel=1e-12)
    return peak


@pytest.mark.parametrize("n_cliques", [2051, 4101])
def test_leiden_of_more_than_2_to_the_31_edges(n_cliques):
    """Cliques are the communities. Beside the graph (8 bytes an edge) Leiden holds what it sorts at once."""
    graph = cliques(n_cliques)
    assert graph[2].size > (2**31 if n_cliques < 4000 else 2**32)
    peak = assert_cliques_found(graph)
    assert peak < 12e9 + 300 * graph[3]


def test_leiden_of_2_to_the_32_directions():
    """A graph that is not symmetric: A + A^T takes 12 bytes an edge, its weights as integers another 4."""
    graph = cliques(4101, upper=True)
    assert 2 * graph[2].size > 2**32
    peak = assert_cliques_found(graph)
    assert peak < 12e9 + 300 * graph[3] + 2 * 16 * graph[2].size


@pytest.mark.parametrize("n_cliques", [2051, 4101], ids=["2**31", "2**32"])
def test_umap_of_more_than_2_to_the_31_edges(n_cliques):
    """Cliques at the places of a grid, without repulsion: each draws together where it is."""
    graph = cliques(n_cliques)
    assert graph[2].size > (2**31 if n_cliques == 2051 else 2**32)
    side = int(np.ceil(np.sqrt(n_cliques)))
    place = cp.arange(n_cliques)
    centres = cp.stack([place % side, place // side], axis=1).astype(cp.float32)
    noise = cp.asarray(np.random.default_rng(1).random((graph[3], 2), np.float32))
    start = centres.repeat(CLIQUE, axis=0) + cp.float32(0.2) * noise
    start[0], start[-1] = 0, side  # the axes are stretched to [0, 10]
    got, *_, symmetric = _core.tl.umap(gpu(), graph, 0.5, 1.0, 2, 10, 1.0, 1.0, 0, start, None, None)
    assert symmetric
    parts = cp.asarray(got).reshape(n_cliques, CLIQUE, 2)
    scale = 10 / side
    offset = parts.mean(axis=1) - (centres + 0.1) * scale
    assert float(abs(offset)[1:-1].max()) < 0.11 * scale
    assert float(parts.std(axis=1)[1:-1].max()) < 0.02 * scale  # 0.06 at the start
    assert bool(cp.isfinite(parts).all())


_CIRCULANT = cp.RawKernel(
    r"""extern "C" __global__ void circulant(int* indices, const int* steps, int k, int n) {
  for (long long i = blockIdx.x * (long long)blockDim.x + threadIdx.x; i < n; i += (long long)gridDim.x * blockDim.x) {
    int first = 0;  // steps beyond the end come to the front of the row, those before 0 to its end
    while (first < k && i + steps[first] >= 0 && i + steps[first] < n) ++first;
    if (first == k || i + steps[first] < 0) {
      first = 0;
      while (first < k && i + steps[first] < 0) ++first;
    }
    for (int t = 0; t < k; ++t) {
      const int s = (first + t) % k;
      indices[i * k + t] = (int)((i + steps[s] + n) % n);
    }
  }
}""",
    "circulant",
)


def circulant(n: int, half: Any) -> tuple[Any, Any, Any, int]:
    """Cells on a ring, each joined to those `half` steps before and after it, every edge of weight 1."""
    steps = np.concatenate([-half[::-1], half]).astype(np.int32)
    indices = cp.empty(n * steps.size, cp.int32)
    _CIRCULANT((4096,), (256,), (indices, cp.asarray(steps), np.int32(steps.size), np.int32(n)))
    return cp.arange(n + 1, dtype=cp.int64) * steps.size, indices, cp.ones(indices.size, cp.float32), n


def test_spectral_start_of_more_than_2_to_the_31_edges():
    """Eigenvectors 2 and 3 of a circulant graph are a cosine and a sine: the cells come to lie on a circle.

    The eigenvalue of k turns is the mean of cos(2 pi k s / n) over the steps s. With steps up to n / 8 that of one turn
    is 0.90; the next are 0.83 (1 675 093 turns) and 0.82, so that few products are needed.
    """
    small = circulant(1000, np.array([3, 40, 120]))
    row = small[1].get().reshape(1000, 6)
    for i in (0, 2, 50, 500, 890, 999):
        np.testing.assert_array_equal(row[i], np.sort((i + np.array([-120, -40, -3, 3, 40, 120])) % 1000))
    n = 2**26
    half = np.sort(np.random.default_rng(2).integers(1, n // 8, 17)) | 1
    assert np.mean(np.cos(2 * np.pi * half / n)) > 0.899
    graph = circulant(n, half)
    assert graph[2].size > 2**31
    got, *_, symmetric = _core.tl.umap(gpu(), graph, 0.5, 1.0, 2, 0, 1.0, 1.0, 5, "spectral", None, None)
    assert symmetric
    y = cp.asarray(got)
    assert float(y.min()) == 0 and float(y.max()) == 10
    y -= y.mean(axis=0)
    radius = cp.hypot(y[:, 0], y[:, 1])
    assert float(radius.std()) < 0.02 * float(radius.mean())
    turn = cp.exp(cp.arange(n, dtype=cp.float64) * (2j * np.pi / n)).astype(cp.complex64)
    place = (y[:, 0] + 1j * y[:, 1]) / radius
    once = max(abs(complex(cp.mean(place * turn))), abs(complex(cp.mean(place * turn.conj()))))
    assert once > 0.999


@pytest.mark.parametrize("n", [4096, 8192], ids=["2**31", "2**32"])
def test_exact_search_of_more_than_2_to_the_31_coordinates(n):
    """Few rows, many columns: groups of 16, whose t-th row differs from the first by t^3 / 10000 in every column."""
    m, k, size = 2**19 + 1, 6, 16
    assert n * m > (2**31 if n == 4096 else 2**32)
    random = cp.random.default_rng(1)
    x = cp.empty((n, m), cp.float32)
    steps = (np.arange(size) ** 3 / 10000).astype(np.float32)
    for first in range(0, n, size):
        x[first : first + size] = random.standard_normal(m, dtype=cp.float32) + cp.asarray(steps)[:, None]
    found = _core.pp.knn(gpu(), x, k, "euclidean", 2.0, "brute")
    indices, distances = (host(a).reshape(n, k) for a in found[:2])
    apart = abs(steps[:, None] - steps)
    order = np.argsort(apart, axis=1, kind="stable")[:, :k]
    np.testing.assert_array_equal(indices, np.tile(order, (n // size, 1)) + np.arange(n)[:, None] // size * size)
    want = np.take_along_axis(apart, order, axis=1) * np.sqrt(m)
    np.testing.assert_allclose(distances, np.tile(want, (n // size, 1)), rtol=1e-3)
