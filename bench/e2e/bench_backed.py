"""Row blocks from a file: how fast the steps of the main job go beside the reader alone.

    python bench/e2e/bench_backed.py --cells 250000 --device cuda
    python bench/e2e/bench_backed.py --file counts.h5ad --device cpu

Makes an h5ad file (data A of peer_counts.py cut to so many cells with CUDA, else simulated), reads it with
backed="r" and runs QC, normalisation, log1p, variable genes and PCA on it. "alone" is what as many passes of the reader
take, which bring every block to the device and do nothing with it; "of reader" is alone / step: 1.00 means that the
step is hidden behind the reading. A pass over the values alone is counted as such. The page cache is warm.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

import scwarp as scw
from scwarp._context import make_context


def counts(cells: int, device: str) -> Any:
    import anndata as ad
    import scipy.sparse as sp

    if device == "cpu":
        return scw.datasets.simulate(n_cells=cells, n_genes=20000)
    from peer_counts import make

    d = make("A")
    end = int(d["indptr"][cells])
    x = sp.csr_matrix(
        (d["data"][:end].get(), d["indices"][:end].get(), d["indptr"][: cells + 1].get()), shape=(cells, d["shape"][1])
    )
    a = ad.AnnData(x)
    a.var_names = [f"g{i}" for i in range(a.n_vars)]
    a.var["mt"] = False
    a.var.iloc[d["mt"], a.var.columns.get_loc("mt")] = True
    return a


def clock(f: Any) -> float:
    start = time.perf_counter()
    f()
    return time.perf_counter() - start


def measure(path: Path, device: str, repeats: int) -> None:
    with scw.settings.override(device=device):
        a = scw.read_h5ad(path, backed="r")
        mt = [c for c in a.var.columns if c == "mt"]
        source = a.X.source()
        alone = []
        for values_only in (False, True):
            ctx = make_context(op="pp.gene_moments", device=device)
            visit = lambda v=values_only, c=ctx: scw._core.io.visit_rows(c, source, v)  # noqa: E731
            visit()  # the first pass finds out that indices are sorted
            alone.append(min(clock(visit) for _ in range(repeats)))
        gb = a.X.nbytes / 1e9
        print(f"{path.name}: {a.n_obs} x {a.n_vars}, {a.X.file.n_entries} entries, {path.stat().st_size / 1e9:.2f} GB")
        print(f"reader alone: {alone[0]:.3f} s ({gb / alone[0]:.2f} GB/s unpacked), values alone {alone[1]:.3f} s")
        print(f"{'step':18s} {'seconds':>8s} {'passes':>9s} {'alone':>8s} {'of reader':>9s}")
        steps = {
            "qc": lambda: scw.pp.calculate_qc_metrics(a, qc_vars=mt, percent_top=None, inplace=True),
            "normalize_total": lambda: scw.pp.normalize_total(a),
            "log1p": lambda: scw.pp.log1p(a),
            "hvg": lambda: scw.pp.highly_variable_genes(a, n_top_genes=min(5000, a.n_vars // 4)),
            "pca": lambda: scw.pp.pca(a, n_comps=50),
        }
        total = total_alone = 0.0
        for name, step in steps.items():
            before = np.array(a.X.file.passes)
            seconds = clock(step)
            passes = np.array(a.X.file.passes) - before
            expected = float(passes @ np.array(alone))
            total, total_alone = total + seconds, total_alone + expected
            share = expected / seconds if expected else float("nan")
            print(f"{name:18s} {seconds:8.3f} {passes[0]:4d} +{passes[1]:3d} {expected:8.3f} {share:9.2f}", flush=True)
        print(f"{'all':18s} {total:8.3f} {'':9s} {total_alone:8.3f} {total_alone / total:9.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=250_000)
    parser.add_argument("--file", type=Path, help="an h5ad file of counts, instead of making one")
    parser.add_argument("--levels", default="1,0", help="gzip levels of the files that are made")
    parser.add_argument("--device", default="cuda", choices=("cpu", "cuda"))
    parser.add_argument("--repeats", type=int, default=2)
    args = parser.parse_args()
    if args.file is not None:
        measure(args.file, args.device, args.repeats)
        return
    data = counts(args.cells, args.device)
    with tempfile.TemporaryDirectory() as folder:
        for level in args.levels.split(","):
            path = Path(folder) / f"gzip{level}.h5ad"
            seconds = clock(lambda p=path, v=level: scw.write_h5ad(data, p, compression_level=int(v)))
            print(f"written in {seconds:.1f} s")
            measure(path, args.device, args.repeats)


if __name__ == "__main__":
    main()
