"""Cold start: a fresh process runs the whole job on a small matrix (6 000 x 3 000) on CUDA, from `python` to the end.

    python bench/e2e/cold_start.py [--device cuda] [--runs 3]

Bytecode of the modules comes from a cache that a run before the clocked ones fills, as after any installation: some
images keep Python from writing it, and every import compiles its source again.
The peer takes 3 s to import and 4 to 10 s for the first call of a step.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

JOB = """
import time
t0 = time.perf_counter()
import sys
import anndata as ad
t1 = time.perf_counter()
import scwarp as scw
import numpy as np
import scipy.sparse as sp
device = sys.argv[2]
times = [("anndata", t1 - t0), ("scwarp", time.perf_counter() - t1)]
def step(name, f):
    t = time.perf_counter()
    try:
        f()
    except NotImplementedError:
        name += " (no kernel)"
    times.append((name, time.perf_counter() - t))
z = np.load(sys.argv[1])
a = ad.AnnData(sp.csr_matrix((z["data"], z["indices"], z["indptr"]), shape=tuple(z["shape"])))
scw.settings.device = device
step("device", lambda: scw.memory.info() if device != "cpu" else None)
step("qc", lambda: scw.pp.calculate_qc_metrics(a, percent_top=None, inplace=True, log1p=False))
step("filter", lambda: scw.pp.filter_cells(a, min_genes=1))
step("normalize", lambda: scw.pp.normalize_total(a, target_sum=1e4))
step("log1p", lambda: scw.pp.log1p(a))
step("hvg", lambda: scw.pp.highly_variable_genes(a, n_top_genes=500))
step("scale", lambda: scw.pp.scale(a, max_value=10))
step("pca", lambda: scw.pp.pca(a))
step("neighbors", lambda: scw.pp.neighbors(a))
step("umap", lambda: scw.tl.umap(a))
step("leiden", lambda: scw.tl.leiden(a))
print(" ".join(f"{n} {t:.3f}" for n, t in times))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--runs", type=int, default=3)
    args = parser.parse_args()
    import numpy as np

    import scwarp as scw

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "counts.npz"
        x = scw.datasets.simulate(6000, 3000, seed=1).X
        np.savez(path, data=x.data.astype(np.float32), indices=x.indices, indptr=x.indptr, shape=x.shape)
        env = {**os.environ, "PYTHONPYCACHEPREFIX": str(Path(folder) / "bytecode")}
        env.pop("PYTHONDONTWRITEBYTECODE", None)
        command = [sys.executable, "-c", JOB, str(path), args.device]
        for run in range(args.runs + 1):
            start = time.perf_counter()
            out = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
            if run == 0:
                continue
            seconds = time.perf_counter() - start
            print(
                f"{seconds:.2f} s from python to the end: {out.stdout.strip()} {out.stderr.strip()[-600:]}", flush=True
            )


if __name__ == "__main__":
    main()
