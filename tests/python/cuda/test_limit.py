"""The main job within a quarter of the device memory that it takes when everything fits: the matrix stays on the host
and streams, and every slot is the same."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pytest
import scipy.sparse as sp

import scwarp as scw

if scw._core.unavailable_reason("cuda"):
    pytest.skip("no CUDA device: " + scw._core.unavailable_reason("cuda"), allow_module_level=True)

N_CELLS, N_GENES = 20_000, 6_000


@pytest.fixture(scope="module")
def counts() -> ad.AnnData:
    a = scw.datasets.simulate(N_CELLS, N_GENES, n_clusters=6, mean_counts=6000, seed=1)
    a.X = sp.csr_matrix(a.X, dtype=np.float32)
    a.var["mt"] = np.arange(N_GENES) < 13
    return a


class Job:
    """The steps one by one, with the largest device memory of each."""

    def __init__(self, counts: ad.AnnData, device: str, dense: bool = False) -> None:
        self.a = counts.copy()
        self.device = device
        self.dense = dense
        self.peaks: dict[str, int] = {}

    def step(self, name: str, f) -> None:
        f(device=self.device)
        if self.device == "cuda":
            self.peaks[name] = scw.memory.info()["peak"]

    def run(self) -> Job:
        a, pp, tl = self.a, scw.pp, scw.tl
        self.step("qc", lambda **k: pp.calculate_qc_metrics(a, qc_vars=["mt"], percent_top=[50], inplace=True, **k))
        self.step("filter_cells", lambda **k: pp.filter_cells(a, min_genes=50, **k))
        self.step("filter_genes", lambda **k: pp.filter_genes(a, min_cells=3, **k))
        self.step("normalize_total", lambda **k: pp.normalize_total(a, **k))
        self.step("log1p", lambda **k: pp.log1p(a, **k))
        self.step("seurat", lambda **k: pp.highly_variable_genes(a, n_top_genes=400, **k))
        a.obs["fraction"] = np.asarray(a.X[:, :200].sum(axis=1)).ravel()
        self.step("qc of values", lambda **k: pp.calculate_qc_metrics(a, percent_top=None, inplace=True, **k))
        tl_of = lambda m: lambda **k: tl.rank_genes_groups(a, "cluster", method=m, pts=True, key_added=m, **k)  # noqa: E731
        for method in ("t-test", "wilcoxon", "wilcoxon_binned"):
            self.step(method, tl_of(method))
        self.step("score_genes", lambda **k: tl.score_genes(a, list(a.var_names[40:90]), **k))
        kinds = ["sum", "mean", "var", "count_nonzero"]

        def aggregate(**k):
            a.uns["sums"] = dict(scw.get.aggregate(a, "cluster", kinds, **k).layers)

        self.step("aggregate", aggregate)
        if self.dense:
            self.step("regress_out", lambda **k: pp.regress_out(a, ["cluster"], **k))
            self.step("scale", lambda **k: pp.scale(a, max_value=10, **k))
        else:
            self.step("regress_out", lambda **k: pp.regress_out(a, ["total_counts", "fraction"], lazy=True, **k))
            self.step("scale", lambda **k: pp.scale(a, max_value=10, lazy=True, **k))
        self.step("pca", lambda **k: pp.pca(a, n_comps=30, **k))
        if self.dense:
            return self
        self.step("neighbors", lambda **k: pp.neighbors(a, **k))
        self.step("umap", lambda **k: tl.umap(a, maxiter=50, **k))
        self.step("leiden", lambda **k: tl.leiden(a, **k))
        return self


def flat(prefix: str, value, out: dict) -> None:
    if hasattr(value, "to_numpy"):
        out[prefix] = value.to_numpy()
    elif hasattr(value, "items"):
        for key, v in value.items():
            flat(f"{prefix}/{key}", v, out)
    elif sp.issparse(value):
        for part in ("indptr", "indices", "data"):
            out[f"{prefix}.{part}"] = getattr(value, part)
    else:
        out[prefix] = np.asarray(value)


def slots(a: ad.AnnData) -> dict:
    out: dict = {}
    for name in ("X", "obs", "var", "obsm", "varm", "obsp", "uns"):
        value = getattr(a, name)
        flat(name, {c: value[c].to_numpy() for c in value.columns} if name in ("obs", "var") else value, out)
    return out


def differences(a: ad.AnnData, b: ad.AnnData) -> list[str]:
    want, got = slots(a), slots(b)
    assert want.keys() == got.keys()

    def same(x: np.ndarray, y: np.ndarray) -> bool:
        if x.dtype != y.dtype or x.shape != y.shape:
            return False
        return x.ravel().tolist() == y.ravel().tolist() if x.dtype.hasobject else x.tobytes() == y.tobytes()

    return [k for k in want if not same(want[k], got[k])]


def test_everything_streams_within_a_quarter(counts):
    scw.memory.free()
    resident = Job(counts, "cuda").run()
    need = max(resident.peaks.values())
    assert need > 2 * counts.X.data.nbytes  # the matrix dominates
    limit = need // 4
    assert limit < counts.X.data.nbytes + counts.X.indices.nbytes
    scw.memory.free()
    with scw.memory.configured(limit=limit):
        streamed = Job(counts, "cuda").run()
    over = {k: v for k, v in streamed.peaks.items() if v > limit}
    assert not over, (over, limit)
    assert not differences(resident.a, streamed.a)


def test_dense_results_stay_on_the_host():
    """Regression and scaling as dense matrices, up to the PCA, beside whose tiles a quarter is large."""
    many = scw.datasets.simulate(120_000, 600, n_clusters=6, mean_counts=600, seed=2)
    many.X = sp.csr_matrix(many.X, dtype=np.float32)
    many.var["mt"] = np.arange(600) < 5
    scw.memory.free()
    resident = Job(many, "cuda", dense=True).run()
    limit = max(resident.peaks.values()) // 4
    assert limit < resident.a.X.nbytes
    scw.memory.free()
    with scw.memory.configured(limit=limit):
        streamed = Job(many, "cuda", dense=True).run()
    assert max(streamed.peaks.values()) <= limit
    assert not differences(resident.a, streamed.a)
    cpu = Job(many, "cpu", dense=True).run()
    np.testing.assert_array_equal(streamed.a.X, cpu.a.X)
    for method in ("t-test", "wilcoxon", "wilcoxon_binned"):
        for group in cpu.a.uns[method]["scores"].dtype.names:
            for table in ("scores", "pvals", "names"):
                np.testing.assert_array_equal(
                    streamed.a.uns[method][table][group], cpu.a.uns[method][table][group], err_msg=f"{method} {table}"
                )
