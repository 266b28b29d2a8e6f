"""Every operation on matrices of several shapes, with the memory it took: what the tests of estimates share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import copy
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from scwarp import _core


def make_block(n: int, m: int, density: float, dtype: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """Counts: every row has the same number of entries; some genes are far more common than others."""
    r = np.random.default_rng(n + m)
    per_row = max(1, int(m * density))
    step = m / per_row
    indices = (np.arange(per_row) * step + r.random((n, per_row)) * step).astype(np.int32)
    indices = np.minimum(indices, m - 1)
    data = r.integers(1, 9, indices.size).astype(dtype)
    return np.arange(n + 1, dtype=np.int64) * per_row, indices.ravel(), data, m


@dataclass
class Data:
    """A matrix where the operations run: CSR as `_core` takes it, or dense."""

    n: int
    m: int
    density: float
    dtype: str
    sparse: bool
    device: str
    xp: Any = np
    arg: Any = None
    nnz: int = 0
    in_file: bool = False
    block_bytes: int = 0
    limit_bytes: int = 0

    def __post_init__(self) -> None:
        indptr, indices, data, m = make_block(self.n, self.m, self.density, self.dtype)
        self.host_indices = indices
        self.nnz = int(data.size) if self.sparse else self.n * self.m
        if self.sparse:
            self.arg = self.xp.asarray(indptr), self.xp.asarray(indices), self.xp.asarray(data), m
        else:
            x = np.zeros((self.n, m), self.dtype)
            x[np.repeat(np.arange(self.n), np.diff(indptr)), indices] = data
            self.arg = self.xp.asarray(x)

    def from_file(self, path: Any, block_bytes: int) -> Data:
        """The same matrix in a file, to be read in blocks; the context must say block_bytes as well."""
        import anndata
        import scipy.sparse as sp

        from scwarp._on_disk import open_matrix

        if not path.exists():
            indptr, indices, data, m = self.arg if self.sparse else (None, None, self.arg, self.m)
            x = sp.csr_matrix((data, indices, indptr), shape=(self.n, m)) if self.sparse else data
            anndata.AnnData(x).write_h5ad(path)
        other = copy(self)
        other.arg, other.in_file, other.block_bytes = open_matrix(str(path)).source(), True, block_bytes
        return other

    def on_host(self, block_bytes: int = 0, limit_bytes: int = 0) -> Data:
        """A matrix on the host that streams to the device."""
        other = copy(self)
        other.device, other.in_file = "cuda:0", True
        other.block_bytes, other.limit_bytes = block_bytes, limit_bytes
        return other

    @property
    def bytes(self) -> int:
        """Of the values, and of the column indices of CSR."""
        return self.nnz * (np.dtype(self.dtype).itemsize + (4 if self.sparse else 0))

    def copy(self) -> Any:
        return (*self.arg[:2], self.arg[2].copy(), self.m) if self.sparse else self.arg.copy()

    def codes(self, k: int) -> np.ndarray:
        return (np.arange(self.n) % k).astype(np.int32)


@dataclass
class Case:
    op: str
    call: Callable[[Any, Data], Any]
    options: dict[str, Any] = field(default_factory=dict)
    sparse: bool | None = None  # only sparse, only dense, or both
    factor: float = 1.1  # how far the figure may lie above the peak
    in_file: bool = False  # also on a matrix in a file

    def __str__(self) -> str:
        return self.op + "".join(f"-{k}={v}" for k, v in self.options.items())


def _hvg(flavor: str, batches: int = 0) -> Callable[[Any, Data], Any]:
    def call(ctx: Any, d: Data) -> Any:
        b = d.xp.asarray(d.codes(batches)) if batches else None
        return _core.pp.highly_variable_genes(
            ctx, d.arg, flavor, 100, 0.0125, 3, 0.5, np.inf, 20, 0.3, None, b, batches, False, None, 100.0, None
        )

    return call


def _rank(method: str, groups: int) -> Callable[[Any, Data], Any]:
    def call(ctx: Any, d: Data) -> Any:
        return _core.tl.rank_genes_groups(
            ctx, d.arg, d.codes(groups), groups, method=method, reference=None, corr_method="bonferroni",
            rankby_abs=False, pts=False, mean_in_log_space=True, log_base=None, tie_correct=False,
            use_continuity=False, return_u_values=False, n_bins=100, bin_range=None,
        )  # fmt: skip

    return call


def _pca(k: int, scale: bool = False) -> Callable[[Any, Data], Any]:
    return lambda ctx, d: _core.pp.pca(ctx, d.arg, k, True, None, scale, None, False, False)


def _genes(d: Data) -> np.ndarray:
    return (np.arange(d.m) % 4 == 0).astype(np.uint8)


CASES = [
    Case("pp.calculate_qc_metrics", lambda ctx, d: _core.pp.calculate_qc_metrics(
        ctx, d.arg, [d.xp.asarray(_genes(d))], [50, 100]), {"n_families": 1, "n_tops": 2, "largest_top": 100}),
    Case("pp.filter_cells", lambda ctx, d: _core.pp.cell_counts(ctx, d.arg)),
    Case("pp.filter_genes", lambda ctx, d: _core.pp.gene_counts(ctx, d.arg)),
    Case("pp.normalize_total", lambda ctx, d: _core.pp.normalize_total(ctx, d.copy(), None, False, 0.05)),
    Case("pp.normalize_total", lambda ctx, d: _core.pp.normalize_total(ctx, d.copy(), 1e4, False, 0.05),
         {"target_sum": 1e4}),
    Case("pp.normalize_total", lambda ctx, d: _core.pp.normalize_total(ctx, d.copy(), 1e4, True, 0.05),
         {"target_sum": 1e4, "exclude_highly_expressed": True}),
    Case("pp.log1p", lambda ctx, d: _core.pp.log1p(ctx, d.copy(), None)),
    Case("pp.sqrt", lambda ctx, d: _core.pp.sqrt(ctx, d.copy())),
    Case("pp.gene_moments", lambda ctx, d: _core.pp.gene_moments(ctx, d.arg)),
    Case("pp.gene_moments", lambda ctx, d: _core.pp.gene_moments(ctx, d.arg, d.xp.asarray(d.codes(7)), 7),
         {"n_groups": 7}),
    Case("pp.highly_variable_genes", _hvg("seurat"), {"flavor": "seurat"}),
    Case("pp.highly_variable_genes", _hvg("seurat", 5), {"flavor": "seurat", "n_batches": 5}),
    Case("pp.highly_variable_genes", _hvg("cell_ranger"), {"flavor": "cell_ranger"}),
    Case("pp.highly_variable_genes", _hvg("cell_ranger", 5), {"flavor": "cell_ranger", "n_batches": 5}),
    Case("pp.highly_variable_genes", _hvg("seurat_v3"), {"flavor": "seurat_v3"}),
    Case("pp.highly_variable_genes", _hvg("seurat_v3", 5), {"flavor": "seurat_v3", "n_batches": 5}),
    Case("pp.scale", lambda ctx, d: _core.pp.scale(ctx, d.copy(), False, None, None), {"zero_center": False}),
    Case("pp.scale", lambda ctx, d: _core.pp.scale(
        ctx, d.copy(), True, 10.0, d.xp.asarray(d.codes(2).astype(np.uint8))), {"masked": True}, sparse=False),
    Case("pp.scale", lambda ctx, d: _core.pp.scale_to_dense(ctx, d.arg, True, None, None), sparse=True),
    Case("pp.regress_out", lambda ctx, d: _core.pp.regress_out(
        ctx, d.copy(), np.column_stack([d.codes(11), d.codes(13)]).astype(float)), {"n_keys": 2}, sparse=False),
    Case("pp.regress_out", lambda ctx, d: _core.pp.regress_out_to_dense(
        ctx, d.arg, np.column_stack([d.codes(11), d.codes(13)]).astype(float)), {"n_keys": 2}, sparse=True),
    Case("pp.normalize_pearson_residuals",
         lambda ctx, d: _core.pp.normalize_pearson_residuals(ctx, d.arg, 100.0, None)),
    Case("pp.subset", lambda ctx, d: _core.pp.subset(ctx, d.arg, None, _genes(d)), {"genes": "every fourth"}),
    Case("pp.pca", _pca(30), {"n_comps": 30}),
    Case("pp.pca", _pca(20, scale=True), {"n_comps": 20, "scale": True}),
    Case("pp.neighbors", lambda ctx, d: _core.pp.knn(ctx, d.arg, 15, "euclidean", 2.0, "brute"),
         {"n_neighbors": 15, "lists_only": True}, sparse=False),
    Case("get.aggregate", lambda ctx, d: _core.get.aggregate(
        ctx, d.arg, d.codes(6), 6, ["sum", "mean", "var", "count_nonzero"], 1),
         {"n_groups": 6, "n_functions": 3, "count_nonzero": True}),
    Case("get.aggregate", lambda ctx, d: _core.get.aggregate(ctx, d.arg, d.codes(6), 6, ["median"], 1),
         {"n_groups": 6, "n_functions": 1, "median": True}),
    Case("tl.score_genes", lambda ctx, d: _core.tl.score_genes(
        ctx, d.arg, list(range(0, d.m, 2)), list(range(1, d.m, 2)))),
    Case("tl.rank_genes_groups", _rank("t-test", 9), {"method": "t-test", "n_groups": 9}),
    Case("tl.rank_genes_groups", _rank("wilcoxon", 9), {"method": "wilcoxon", "n_groups": 9}),
    Case("tl.rank_genes_groups", _rank("wilcoxon_binned", 9), {"method": "wilcoxon_binned", "n_groups": 9}),
    Case("tl.rank_genes_groups", lambda ctx, d: _core.tl.logistic_regression(
        ctx, d.arg, d.codes(9), 9, 1e-3, 1e-12, 13, True), {"method": "logreg", "n_groups": 9}),
]  # fmt: skip

for _case in CASES:
    _case.in_file = _case.op.startswith(("pp.calc", "pp.filter", "pp.gene", "pp.high", "pp.pca", "get", "tl"))
IN_FILE = [
    *(case for case in CASES if case.in_file),
    Case("pp.normalize_total", lambda ctx, d: _core.pp.size_factors(ctx, d.arg, None, False, 0.05)),
    Case("pp.normalize_total", lambda ctx, d: _core.pp.size_factors(ctx, d.arg, 1e4, False, 0.05), {"target_sum": 1e4}),
]

# On CUDA, from the host. Matrices of neighbours and graphs go to the device as a whole.
STREAMED = [case for case in CASES if case.op not in ("pp.subset", "pp.neighbors")]

SHAPES = [(20000, 2000, 0.05), (60000, 1000, 0.1), (3000, 7000, 0.1)]
SLACK = 2 << 20


def estimate(case: Case, d: Data, n_threads: int) -> int:
    """The figure that the measured peak is compared with."""
    options = dict(case.options)
    nnz = d.nnz
    if case.op == "pp.subset":
        genes = _genes(d).astype(bool)
        kept = int(genes[d.host_indices].sum()) if d.sparse else 0
        options = {"kept_cols": int(genes.sum()), "kept_values": kept}
    if not d.sparse and (case.options.get("method", "t-test") != "t-test" or case.options.get("median")):
        nnz = d.host_indices.size  # values that are not 0
    return int(
        _core.memory.estimate(
            case.op,
            d.device,
            n_threads,
            d.n,
            d.m,
            nnz,
            np.dtype(d.dtype).itemsize,
            d.sparse,
            options,
            d.in_file,
            d.block_bytes,
            d.limit_bytes,
        )[0]
    )


def graph(n: int, k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """A symmetric ring of n cells in which each is joined to the k before and after it."""
    steps = np.concatenate([np.arange(-k, 0), np.arange(1, k + 1)])
    rows = np.sort((np.arange(n)[:, None] + steps) % n, axis=1).astype(np.int32)
    r = np.random.default_rng(1)
    by_step = r.random((n, k)).astype(np.float32)  # of the edge from i to i + s
    i = np.arange(n)[:, None]
    forward = (rows - i) % n
    data = np.where(forward <= k, by_step[i, np.minimum(forward, k) - 1], by_step[rows, np.minimum(n - forward, k) - 1])
    return np.arange(n + 1, dtype=np.int64) * 2 * k, rows.ravel(), data.astype(np.float32).ravel(), n


GRAPH_CASES = [
    # How many edges are left between the parts of the first level depends on the graph: all of them are taken.
    Case("tl.leiden", lambda ctx, g: _core.tl.leiden(ctx, g, [1.0], -1, True, 0.05, 0), factor=3),
    Case("tl.umap", lambda ctx, g: _core.tl.umap(ctx, g, 0.5, 1.0, 2, 20, 1.0, 1.0, 5, "spectral", None, None)),
]


def graph_estimate(case: Case, g: Any, device: str, n_threads: int) -> int:
    n = g[0].size - 1
    return int(_core.memory.estimate(case.op, device, n_threads, n, n, g[1].size, 4, True, case.options)[0])


def applicable(
    case: Case, shapes: list[tuple[int, int, float]] = SHAPES
) -> Iterator[tuple[int, int, float, str, bool]]:
    """(cells, genes, density, dtype, sparse) of a case."""
    if case.op == "pp.neighbors":
        shapes = [(n, m, density) for n in (20000, 40000) for m, density in ((50, 1.0), (200, 1.0))]
    for n, m, density in shapes:
        for sparse in (True, False):
            if case.sparse in (None, sparse):
                for dtype in ("float32", "float64"):
                    yield n, m, density, dtype, sparse


def peak_of(device: str, call: Callable[[], Any]) -> int:
    """Bytes that a call held at its peak beyond what was held before, results included."""
    if device == "cpu":
        before = _core.memory.info("cpu")["used"]
        _core.reset_memory_peak()
    else:
        before = _core.memory.info(device)["used"]
    result = call()
    peak = _core.memory.info(device)["peak"]
    del result
    return int(peak) - int(before)
