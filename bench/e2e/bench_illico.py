"""Wilcoxon with tie correction beside illico, on the same simulated cells, clusters and threads.

    python bench/e2e/bench_illico.py 20000 100000 --threads 2

Prints seconds (best of the repeats after a warm-up) and the largest difference of the z scores.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import illico
import numpy as np

import scwarp as scw


def best(f: Callable[[], Any], repeats: int) -> tuple[float, Any]:
    seconds = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        result = f()
        seconds.append(time.perf_counter() - start)
    return min(seconds[1:]), result


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("cells", type=int, nargs="+")
    p.add_argument("--genes", type=int, default=20_000)
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--repeats", type=int, default=2)
    args = p.parse_args()
    scw.settings.n_threads = args.threads
    print(f"{'cells':>8}{'illico s':>10}{'scwarp s':>10}{'ratio':>7}  largest difference of z")
    for n in args.cells:
        a = scw.datasets.simulate(n_cells=n, n_genes=args.genes, n_clusters=20, seed=1)
        scw.pp.normalize_total(a, target_sum=1e4)
        scw.pp.log1p(a)
        a.obs["cluster"] = a.obs["cluster"].astype(str).astype("category")

        def theirs(a: Any = a) -> Any:
            return illico.asymptotic_wilcoxon(
                a, is_log1p=True, group_keys="cluster", n_threads=args.threads, use_continuity=False, tie_correct=True
            )

        def ours(a: Any = a) -> Any:
            scw.tl.rank_genes_groups(a, "cluster", method="wilcoxon", tie_correct=True)
            return a.uns["rank_genes_groups"]

        them, frame = best(theirs, args.repeats)
        us, result = best(ours, args.repeats)
        z = frame["z_score"].unstack(level=0) if "z_score" in frame else None
        difference = float("nan")
        if z is not None:
            difference = 0.0
            for group in result["scores"].dtype.names:
                mine = dict(zip(result["names"][group], result["scores"][group], strict=True))
                column = z[group].to_numpy()
                difference = max(difference, float(np.nanmax(np.abs([mine[g] for g in z.index] - column))))
        print(f"{n:>8}{them:>10.3f}{us:>10.3f}{them / us:>7.1f}  {difference:.2g}", flush=True)


if __name__ == "__main__":
    main()
