"""The main job step by step on one GPU, with the peer's figures (rapids-singlecell 0.18.1 on an H200) beside ours.

    python bench/e2e/bench_cuda.py A
    python bench/e2e/bench_cuda.py B --steps qc,umap --repeats 5 --json out.json
    python bench/e2e/bench_cuda.py A --pipeline

Data: peer_counts.py, on the device. A step is timed from an idle device to a synchronised one; what it changes is
copied before the clock starts; the first call is shown apart. Memory: peak of the driver's pool above what was held
when the step began (CuPy allocates from the same pool here). "same": results of all calls have the same bits.
--pipeline: the core steps once, one after the other on the one matrix, with the peak of the whole job and of each step.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from peer_counts import CHECKSUMS, checksum, make

# seconds on A and B; None: not measured
PEER: dict[str, tuple[float | None, float | None]] = {
    "qc": (0.0870, 0.0152),
    "filter_cells": (0.607, 0.0929),
    "filter_genes": (0.678, 0.0963),
    "normalize_total": (0.0060, 0.0006),
    "log1p": (0.0363, 0.0027),
    "hvg_seurat": (0.0902, 0.0252),
    "hvg_cell_ranger": (0.0577, 0.0225),
    "hvg_seurat_batch": (0.849, 0.376),
    "hvg_seurat_v3": (0.196, 0.0543),
    "subset": (0.401, 0.0641),
    "regress_out": (0.425, 0.0081),
    "scale": (0.149, 0.0120),
    "scale_sparse": (0.0242, 0.0040),
    "pca_dense": (1.958, 0.312),
    "pca_sparse": (1.743, 0.293),
    "pca_sparse_mask": (1.718, 0.297),
    "neighbors": (9.701, 0.161),
    "umap": (1.178, 0.303),
    "leiden": (1.475, 0.235),
    "t_test": (0.385, 0.155),
    "wilcoxon": (0.503, 0.0602),
    "wilcoxon_binned": (0.266, 0.0701),
    "logreg": (16.3, 0.596),
    "score_genes": (0.254, 0.153),
    "aggregate": (0.160, 0.0170),
    "to_gpu": (1.663, 0.124),
    "to_cpu": (4.706, 0.432),
}
CORE = ("qc", "filter_cells", "filter_genes", "normalize_total", "log1p", "hvg_seurat", "subset", "regress_out",
        "scale", "pca_dense", "neighbors", "umap", "leiden")  # fmt: skip
N_TOP = {"A": 5000, "B": 2000, "T": 500}


class Bench:
    """The states that steps start from, each made once, and freed when no later step needs it."""

    def __init__(self, name: str) -> None:
        import anndata as ad
        import cupy as cp
        import cupyx.scipy.sparse as csp
        import pandas as pd

        import scwarp as scw

        self.cp, self.scw, self.name = cp, scw, name
        cp.cuda.set_allocator(cp.cuda.MemoryAsyncPool().malloc)
        d = make(name)
        if checksum(d) != CHECKSUMS[name]:
            sys.exit(f"the data differ from the peer's: {checksum(d)}, expected {CHECKSUMS[name]}")
        x = csp.csr_matrix((d["data"], d["indices"], d["indptr"]), shape=d["shape"])
        x.has_canonical_format = True
        cells, genes = d["shape"]
        obs = pd.DataFrame(
            {
                "cluster": pd.Categorical(d["cluster"].astype(str)),
                "batch": pd.Categorical(d["batch"].astype(str)),
            },
            index=pd.RangeIndex(cells).astype(str),
        )
        var = pd.DataFrame(index=[f"g{i}" for i in range(genes)])
        var["mt"] = False
        var.iloc[d["mt"], 0] = True
        self.counts = ad.AnnData(x, obs=obs, var=var)

    @functools.cached_property
    def logged(self) -> Any:
        """Counts with QC columns, normalised, log1p, with the variable genes marked."""
        scw = self.scw
        a = self.counts.copy()
        scw.pp.calculate_qc_metrics(a, qc_vars=["mt"], percent_top=None, log1p=False, inplace=True)
        scw.pp.normalize_total(a, target_sum=1e4)
        scw.pp.log1p(a)
        scw.pp.highly_variable_genes(a, n_top_genes=N_TOP[self.name])
        return a

    @functools.cached_property
    def chosen(self) -> Any:
        a = self.logged.copy()
        self.scw.pp.filter_highly_variable(a)
        return a

    @functools.cached_property
    def regressed(self) -> Any:
        a = self.chosen.copy()
        self.scw.pp.regress_out(a, ["total_counts", "pct_counts_mt"])
        return a

    @functools.cached_property
    def scaled(self) -> Any:
        a = self.regressed.copy()
        self.scw.pp.scale(a, max_value=10)
        return a

    @functools.cached_property
    def embedded(self) -> Any:
        """The scores alone: no matrix of the size of the data is held for the graph steps."""
        import anndata as ad

        a = self.scaled.copy()
        self.scw.pp.pca(a)
        small = ad.AnnData(obs=a.obs, obsm={"X_pca": a.obsm["X_pca"]})
        for state in ("regressed", "scaled"):
            self.__dict__.pop(state, None)
        return small

    @functools.cached_property
    def connected(self) -> Any:
        a = self.embedded.copy()
        self.scw.pp.neighbors(a, n_neighbors=15)
        return a

    def steps(self) -> dict[str, tuple[str, Callable[[Any], Any], Callable[[Any], Any]]]:
        """name: (state that a copy is made of, the call, what its result is digested from)."""
        pp, tl, get, n_top = self.scw.pp, self.scw.tl, self.scw.get, N_TOP[self.name]

        def obs(*keys: str) -> Callable[[Any], Any]:
            return lambda a: [a.obs[k].to_numpy() for k in keys]

        def var(*keys: str) -> Callable[[Any], Any]:
            return lambda a: [a.var[k].to_numpy() for k in keys]

        def x(a: Any) -> Any:
            return [a.X.data if hasattr(a.X, "indptr") else a.X]

        def hvg(**options: Any) -> Callable[[Any], Any]:
            return lambda a: pp.highly_variable_genes(a, n_top_genes=n_top, **options)

        def markers(method: str) -> Callable[[Any], Any]:
            return lambda a: tl.rank_genes_groups(a, "cluster", method=method)

        def ranked(a: Any) -> Any:
            r = a.uns["rank_genes_groups"]
            return [np.asarray(r[k].tolist()) for k in ("names", "scores")]

        genes = [f"g{i}" for i in range(100)]
        return {
            "qc": (
                "counts",
                lambda a: pp.calculate_qc_metrics(a, qc_vars=["mt"], percent_top=None, inplace=True),
                obs("total_counts", "pct_counts_mt"),
            ),
            "filter_cells": ("counts", lambda a: pp.filter_cells(a, min_genes=200), lambda a: [np.array(a.shape)]),
            "filter_genes": ("counts", lambda a: pp.filter_genes(a, min_cells=100), lambda a: [np.array(a.shape)]),
            "normalize_total": ("counts", lambda a: pp.normalize_total(a, target_sum=1e4), x),
            "log1p": ("counts", lambda a: pp.log1p(a), x),
            "hvg_seurat": ("logged", hvg(), var("highly_variable", "dispersions_norm")),
            "hvg_cell_ranger": ("logged", hvg(flavor="cell_ranger"), var("highly_variable", "dispersions_norm")),
            "hvg_seurat_batch": ("logged", hvg(batch_key="batch"), var("highly_variable", "dispersions_norm")),
            "hvg_seurat_v3": ("counts", hvg(flavor="seurat_v3"), var("highly_variable", "variances_norm")),
            "t_test": ("logged", markers("t-test"), ranked),
            "wilcoxon": ("logged", markers("wilcoxon"), ranked),
            "wilcoxon_binned": ("logged", markers("wilcoxon_binned"), ranked),
            "score_genes": ("logged", lambda a: tl.score_genes(a, genes), obs("score")),
            "aggregate": (
                "logged",
                lambda a: a.uns.update(sums=get.aggregate(a, by="cluster", func=["sum", "mean", "var"])),
                lambda a: [a.uns["sums"].layers[k] for k in ("sum", "mean", "var")],
            ),
            "subset": ("logged", lambda a: pp.filter_highly_variable(a), x),
            "pca_sparse_mask": ("logged", lambda a: pp.pca(a), lambda a: [a.obsm["X_pca"]]),
            "pca_sparse": ("chosen", lambda a: pp.pca(a), lambda a: [a.obsm["X_pca"]]),
            "logreg": ("chosen", markers("logreg"), ranked),
            "scale_sparse": ("chosen", lambda a: pp.scale(a, zero_center=False), x),
            "regress_out": ("chosen", lambda a: pp.regress_out(a, ["total_counts", "pct_counts_mt"]), x),
            "scale": ("regressed", lambda a: pp.scale(a, max_value=10), x),
            "pca_dense": ("scaled", lambda a: pp.pca(a), lambda a: [a.obsm["X_pca"]]),
            "neighbors": ("embedded", lambda a: pp.neighbors(a), lambda a: [a.obsp["connectivities"].data]),
            "umap": ("connected", lambda a: tl.umap(a), lambda a: [a.obsm["X_umap"]]),
            "leiden": ("connected", lambda a: tl.leiden(a), obs("leiden")),
            "to_cpu": ("counts", lambda a: get.anndata_to_CPU(a), lambda a: [a.X.data[:1000]]),
            "to_gpu": ("on_host", lambda a: get.anndata_to_GPU(a), lambda a: [a.X.data[:1000]]),
        }

    @functools.cached_property
    def on_host(self) -> Any:
        a = self.counts.copy()
        self.scw.get.anndata_to_CPU(a)
        return a

    def digest(self, arrays: Any) -> str:
        h = hashlib.sha1()
        for a in arrays:
            if isinstance(a, self.cp.ndarray):  # an order-free sum of the bits stands for a large matrix
                bits = a.ravel().view(self.cp.uint32)
                index = self.cp.arange(1, 1025, dtype=self.cp.uint64)
                for first in range(0, bits.size, 1 << 26):
                    part = bits[first : first + (1 << 26)].astype(self.cp.uint64)
                    part *= self.cp.resize(index, 1 << 26)[: part.size]
                    h.update(str(int(part.sum())).encode())
            elif a.dtype == object or a.dtype.kind in "OU":
                h.update(repr(a.tolist()).encode())
            else:
                h.update(np.ascontiguousarray(a).tobytes())
        return h.hexdigest()[:12]

    def time(self, name: str, repeats: int, check: bool) -> dict[str, Any]:
        cp = self.cp
        state, call, result = self.steps()[name]
        source = getattr(self, state)
        seconds, digests, peak = [], set(), 0
        pool = cp.cuda.runtime.deviceGetDefaultMemPool(0)
        high, used = 0x8, 0x7  # cudaMemPoolAttrUsedMemHigh, cudaMemPoolAttrUsedMemCurrent
        for _ in range(repeats + 1):
            a = source.copy()
            cp.cuda.Device().synchronize()
            before = cp.cuda.runtime.memPoolGetAttribute(pool, used)
            cp.cuda.runtime.memPoolSetAttribute(pool, high, 0)
            start = time.perf_counter()
            call(a)
            cp.cuda.Device().synchronize()
            seconds.append(time.perf_counter() - start)
            peak = max(peak, cp.cuda.runtime.memPoolGetAttribute(pool, high) - before)
            if check:
                digests.add(self.digest(result(a)))
            shape = a.shape
            del a
        warm = sorted(seconds[1:])
        return {
            "first": seconds[0],
            "median": warm[len(warm) // 2],
            "min": warm[0],
            "adds_gb": peak / 1e9,
            "same": len(digests) == 1,
            "digest": sorted(digests),
            "shape": shape,
        }

    def pipeline(self) -> None:
        cp, a = self.cp, self.counts
        steps = self.steps()
        del self.counts
        pool = cp.cuda.runtime.deviceGetDefaultMemPool(0)
        high, used = 0x8, 0x7  # as above
        whole, begin = 0, time.perf_counter()
        for name in CORE:
            cp.cuda.Device().synchronize()
            before = cp.cuda.runtime.memPoolGetAttribute(pool, used)
            cp.cuda.runtime.memPoolSetAttribute(pool, high, 0)
            start = time.perf_counter()
            steps[name][1](a)
            cp.cuda.Device().synchronize()
            seconds = time.perf_counter() - start
            peak = cp.cuda.runtime.memPoolGetAttribute(pool, high)
            whole = max(whole, peak)
            print(
                f"{name:<18}{seconds:10.4f} s  held before {before / 1e9:6.2f} GB  peak {peak / 1e9:6.2f}", flush=True
            )
        print(f"{'whole':<18}{time.perf_counter() - begin:10.3f} s  peak {whole / 1e9:.2f} GB  {a.shape}")


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("data", choices=["A", "B", "T"])
    p.add_argument("--steps", help="comma-separated; default: all")
    p.add_argument("--repeats", type=int, default=3)
    p.add_argument("--no-check", action="store_true", help="leave out the digests of the results")
    p.add_argument("--json", type=Path)
    p.add_argument("--pipeline", action="store_true", help="the core steps in a row, and the peak of memory")
    args = p.parse_args()
    start = time.perf_counter()
    bench = Bench(args.data)
    print(f"data {args.data} in {time.perf_counter() - start:.1f} s", flush=True)
    if args.pipeline:
        return bench.pipeline()
    names = args.steps.split(",") if args.steps else list(bench.steps())
    if unknown := [n for n in names if n not in PEER]:
        sys.exit(f"unknown steps {unknown}, expected some of {list(PEER)}")
    results: dict[str, Any] = {}
    column = {"A": 0, "B": 1}.get(args.data)
    print(f"{'step':<18}{'median s':>10}{'first s':>10}{'peer s':>9}{'ratio':>8}{'adds GB':>9}  same  shape")
    for name in names:
        try:
            r = bench.time(name, args.repeats, not args.no_check)
        except (NotImplementedError, AttributeError) as error:
            print(f"{name:<18}{'-':>10}  {str(error)[:90]}", flush=True)
            continue
        results[name] = r
        peer = PEER[name][column] if column is not None else None
        ratio = f"{peer / r['median']:8.1f}" if peer else " " * 8
        same = "-" if args.no_check else "yes" if r["same"] else "NO"
        print(f"{name:<18}{r['median']:10.4f}{r['first']:10.4f}{peer or float('nan'):9.4f}{ratio}{r['adds_gb']:9.2f}  "
              f"{same:<4}  {r['shape']}", flush=True)  # fmt: skip
    if column is not None and all(n in results for n in CORE):
        ours, peers = sum(results[n]["median"] for n in CORE), sum(PEER[n][column] or 0 for n in CORE)
        print(f"{'sum of the core':<18}{ours:10.3f}{'':>10}{peers:9.2f}{peers / ours:8.1f}")
    if args.json:
        args.json.write_text(json.dumps(results, indent=1, default=str))


if __name__ == "__main__":
    main()
