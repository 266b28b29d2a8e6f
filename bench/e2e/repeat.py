"""The main job again and again in one process: device and host memory must not grow.

    python bench/e2e/repeat.py B --repeats 200            # 100 000 cells, matrix in CuPy
    python bench/e2e/repeat.py B --repeats 200 --host     # matrix on the host, streamed

Prints what is held every tenth part of the way, checks that all repeats give the same bits, and exits with 1 if the
last fifth holds more than the second fifth did (by over 1 MiB on the device, 1 % + 16 MiB on the host).
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import os
import sys
import time
from typing import Any

import anndata as ad
import numpy as np
from peer_counts import make

import scwarp as scw


def rss() -> int:
    with open("/proc/self/statm") as f:
        return int(f.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def job(x: Any, n_top: int) -> str:
    a = ad.AnnData(x.copy())
    scw.pp.normalize_total(a, target_sum=1e4)
    scw.pp.log1p(a)
    if scw._core.supports("pp.gene_moments", "cuda"):
        scw.pp.highly_variable_genes(a, n_top_genes=n_top)
        scw.pp.filter_highly_variable(a)
    scw.pp.pca(a)
    scw.pp.neighbors(a)
    scw.tl.umap(a)
    if scw._core.supports("tl.leiden", "cuda"):
        scw.tl.leiden(a)
    digest = hashlib.sha256(a.obsm["X_umap"].tobytes())
    if "leiden" in a.obs:
        digest.update(np.ascontiguousarray(a.obs["leiden"].cat.codes).tobytes())
    return digest.hexdigest()[:16]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", choices=("B", "T"))
    parser.add_argument("--repeats", type=int, default=200)
    parser.add_argument("--host", action="store_true")
    args = parser.parse_args()
    import cupy as cp
    import cupyx.scipy.sparse as csp

    d = make(args.data)
    x = csp.csr_matrix((d["data"], d["indices"], d["indptr"]), shape=d["shape"])
    x.has_canonical_format = True
    scw.settings.device = "cuda"
    if args.host:
        x = scw.get.X_to_CPU(x)
    del d
    results, device, host = set(), [], []
    start = time.perf_counter()
    for i in range(args.repeats):
        results.add(job(x, {"B": 2000, "T": 500}[args.data]))
        gc.collect()
        cp.get_default_memory_pool().free_all_blocks()
        device.append(scw.memory.info()["used"])
        host.append(rss())
        if i % max(1, args.repeats // 10) == 0:
            print(f"{i:4d}  device {device[-1] / 1e6:9.2f} MB  host {host[-1] / 1e6:9.1f} MB", flush=True)
    seconds = (time.perf_counter() - start) / args.repeats
    fifth = max(1, args.repeats // 5)
    grown = max(device[-fifth:]) - max(device[fifth : 2 * fifth])
    host_grown = max(host[-fifth:]) - max(host[fifth : 2 * fifth])
    print(f"{args.repeats} repeats, {seconds:.3f} s each, {len(results)} different results; "
          f"growth: device {grown / 1e6:.2f} MB, host {host_grown / 1e6:.1f} MB")  # fmt: skip
    leaks = grown > 1 << 20 or host_grown > 0.01 * host[fifth] + (16 << 20)
    return 1 if leaks or len(results) != 1 else 0


if __name__ == "__main__":
    sys.exit(main())
