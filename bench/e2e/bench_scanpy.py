"""The main job step by step, scanpy and scwarp on the same machine, file and number of threads.

    make bench-scanpy N=20000
    python bench/e2e/bench_scanpy.py 100000 --threads 2 --repeats 1

Each package runs in a process of its own, after a warm-up on a small object, so that scanpy's compilation (numba) is
not counted; --cold leaves the warm-up out. Steps with a + are not part of the sum.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MAIN_JOB = (
    "read",
    "qc",
    "filters",
    "normalize_total",
    "log1p",
    "hvg seurat",
    "scale",
    "pca dense",
    "neighbors",
    "umap",
    "leiden",
    "wilcoxon",
)


def job(m, path: str, timings: dict[str, float], scanpy: bool) -> dict[str, object]:
    """Both packages take the same calls; only the reader and Leiden's flavour differ by name."""
    import warnings

    warnings.filterwarnings("ignore")

    def step(name, f):
        start = time.perf_counter()
        r = f()
        seconds = time.perf_counter() - start
        timings[name] = timings.get(name, 0.0) + seconds
        print(f"  {m.__name__} {name}: {seconds:.3f} s", file=sys.stderr, flush=True)
        return r

    a = step("read", lambda: m.read_h5ad(path))
    a.var["mt"] = a.var_names.str.upper().str.startswith("MT-")
    step("qc", lambda: m.pp.calculate_qc_metrics(a, qc_vars=["mt"], inplace=True))
    step("filters", lambda: m.pp.filter_cells(a, min_genes=200))
    step("filters", lambda: m.pp.filter_genes(a, min_cells=3))
    v3 = dict(n_top_genes=2000, flavor="seurat_v3", inplace=False)
    step("+ hvg seurat_v3", lambda: m.pp.highly_variable_genes(a, **v3))
    step("normalize_total", lambda: m.pp.normalize_total(a, target_sum=1e4))
    step("log1p", lambda: m.pp.log1p(a))
    step("hvg seurat", lambda: m.pp.highly_variable_genes(a, n_top_genes=2000))
    a.raw = a
    h = a[:, a.var["highly_variable"]].copy()
    for name, f in (
        ("+ pca sparse", m.pp.pca),
        ("+ regress_out", lambda x: m.pp.regress_out(x, ["total_counts", "pct_counts_mt"])),
    ):
        step(name, functools.partial(f, h.copy()))
    step("scale", lambda: m.pp.scale(h, max_value=10))
    step("pca dense", lambda: m.pp.pca(h))
    step("neighbors", lambda: m.pp.neighbors(h))
    step("umap", lambda: m.tl.umap(h))
    leiden = dict(flavor="igraph", n_iterations=2, directed=False) if scanpy else {}
    step("leiden", lambda: m.tl.leiden(h, **leiden))
    step("wilcoxon", lambda: m.tl.rank_genes_groups(h, "leiden", method="wilcoxon"))
    step("+ t-test", lambda: m.tl.rank_genes_groups(h, "leiden", method="t-test"))
    return {"cells": h.n_obs, "genes": a.n_vars, "clusters": int(h.obs["leiden"].nunique())}


def child(package: str, path: str, small: str, out: str, warm: bool) -> None:
    start = time.perf_counter()
    if package == "scanpy":
        import scanpy as m
    else:
        import scwarp as m
    timings: dict[str, float] = {"import": time.perf_counter() - start}
    if warm:
        job(m, small, {}, package == "scanpy")
    info = job(m, path, timings, package == "scanpy")
    info["peak_gb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    Path(out).write_text(json.dumps({"timings": timings, "info": info}))


def simulate(n: int, genes: int, folder: Path) -> Path:
    path = folder / f"simulated_{n}x{genes}.h5ad"
    if not path.exists():
        import scwarp as scw

        a = scw.datasets.simulate(n_cells=n, n_genes=genes, n_clusters=20, seed=1)
        scw.write_h5ad(a, path)
    return path


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("cells", type=int, nargs="?", default=20_000)
    p.add_argument("--genes", type=int, default=20_000)
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--repeats", type=int, default=1)
    p.add_argument("--cold", action="store_true", help="no warm-up: the first calls in a fresh process")
    p.add_argument("--only", choices=["scanpy", "scwarp"])
    p.add_argument("--child", nargs=5, help=argparse.SUPPRESS)
    args = p.parse_args()
    if args.child:
        package, path, small, out, warm = args.child
        return child(package, path, small, out, warm == "1")

    folder = ROOT / "build" / "bench"
    folder.mkdir(parents=True, exist_ok=True)
    # Over 8192 cells scanpy searches neighbours with pynndescent: the warm-up must compile that too.
    path, small = simulate(args.cells, args.genes, folder), simulate(9000, 2500, folder)
    env = dict(os.environ)
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS", "MKL_NUM_THREADS"):
        env[name] = str(args.threads)
    results: dict[str, list[dict]] = {}
    for repeat in range(args.repeats):  # pair by pair, so that a slow minute hits both
        for package in [args.only] if args.only else ["scanpy", "scwarp"]:
            out = folder / f"{package}_{args.cells}_{repeat}.json"
            warm = "0" if args.cold else "1"
            command = [sys.executable, __file__, "--child", package, str(path), str(small), str(out), warm]
            subprocess.run(command, env=env, check=True)
            results.setdefault(package, []).append(json.loads(out.read_text()))

    def median(package: str, name: str) -> float:
        values = sorted(r["timings"].get(name, float("nan")) for r in results[package])
        return values[len(values) // 2]

    packages = list(results)
    print(f"\n{args.cells} x {args.genes} simulated, {args.threads} threads, {'cold' if args.cold else 'warm'}, "
          f"median of {args.repeats}")  # fmt: skip
    print(
        f"{'step':<18}" + "".join(f"{p + ' s':>12}" for p in packages) + ("       ratio" if len(packages) == 2 else "")
    )
    total = dict.fromkeys(packages, 0.0)
    for name in results[packages[0]][0]["timings"]:
        row = [median(p, name) for p in packages]
        for q, v in zip(packages, row, strict=True):
            total[q] += v if name in MAIN_JOB else 0.0
        ratio = f"{row[0] / row[1]:12.1f}" if len(row) == 2 else ""
        print(f"{name:<18}" + "".join(f"{v:12.3f}" for v in row) + ratio)
    sums = [total[p] for p in packages]
    ratio = f"{sums[0] / sums[1]:12.1f}" if len(sums) == 2 else ""
    print(f"{'sum (main job)':<18}" + "".join(f"{v:12.3f}" for v in sums) + ratio)
    peaks = [max(r["info"]["peak_gb"] for r in results[p]) for p in packages]
    print(f"{'peak memory GB':<18}" + "".join(f"{v:12.2f}" for v in peaks))
    for q in packages:
        print(q, results[q][0]["info"])


if __name__ == "__main__":
    main()
