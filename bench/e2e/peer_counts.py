"""The seeded count matrices that rapids-singlecell was measured on, made on the GPU in seconds.

    python bench/e2e/peer_counts.py A      makes it and prints the checksums

A: 1 000 000 cells x 28 000 genes, 1 905 839 915 values; B: 100 000 x 20 000; T: 6 000 x 3 000. Compare results with
other programs only where the checksums agree.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class Spec:
    cells: int
    genes: int
    clusters: int
    batches: int
    seed: int
    counts_per_cell: float


SPECS = {
    "A": Spec(1_000_000, 28_000, 20, 10, 20261122, 3250.0),
    "B": Spec(100_000, 20_000, 20, 10, 77001, 2200.0),
    "T": Spec(6_000, 3_000, 8, 4, 5, 1200.0),
}
# (sum of the counts, sum of (gene + 1) * count)
CHECKSUMS = {
    "A": (1_905_839_915, 5_034_229_641, 72_231_956_479_622),
    "B": (125_633_066, 344_718_659, 3_617_541_654_066),
    "T": (2_808_501, 9_524_220, 14_921_388_841),
}


def _coarse(a: np.ndarray, bits: int = 12) -> np.ndarray:
    """float32 with ``bits`` bits of mantissa: hides last-bit differences of exp between builds of NumPy."""
    mantissa, exponent = np.frexp(np.asarray(a, np.float64))
    return np.ldexp(np.round(mantissa * 2.0**bits) / 2.0**bits, exponent).astype(np.float32)


def tables(s: Spec) -> dict[str, np.ndarray]:
    """Profiles of clusters, batches and gene programmes; the draws come in an order that must not change."""
    r = np.random.Generator(np.random.PCG64(s.seed))
    genes, clusters = s.genes, s.clusters
    base = np.exp(r.normal(0, 2.0, genes))
    mt = np.sort(r.choice(genes, 13, replace=False))
    base[mt] = base.sum() * 0.06 / 13
    base /= base.sum()
    profile = np.repeat(base[None], clusters, 0) * np.exp(r.normal(0, 0.08, (clusters, genes)))
    n_markers = genes // 90
    draw = np.sqrt(base) / np.sqrt(base).sum()
    for k in range(clusters):
        chosen = r.choice(genes, n_markers, replace=False, p=draw)
        profile[k, chosen] *= np.exp(r.normal(1.3, 0.6, n_markers))
    families = max(1, clusters // 4)
    for f in range(families):  # clusters of one family share further markers
        chosen = r.choice(genes, n_markers, replace=False, p=draw)
        profile[f::families, chosen[:, None].T] *= np.exp(r.normal(1.0, 0.4, n_markers))
    batch = np.exp(r.normal(0, 0.12, (s.batches, genes)))
    program = -np.ones(genes, np.int8)
    weight = np.zeros(genes)
    for p in range(4):
        chosen = r.choice(genes, genes // 100, replace=False)
        program[chosen] = p
        weight[chosen] = np.exp(r.normal(1.2, 0.4, chosen.size))
    library = np.exp(r.normal(0, 0.35, 4096))
    library *= s.counts_per_cell / library.mean()
    share = 1.0 / np.arange(1, clusters + 1) ** 0.6
    share /= share.sum()
    threshold = np.minimum(np.cumsum(share) * 2.0**32, 2.0**32 - 1).astype(np.uint32)
    return {
        "threshold": threshold,
        "library": _coarse(library),
        "profile": _coarse(profile),
        "batch": _coarse(batch),
        "program": program,
        "weight": _coarse(weight),
        "mt": mt,
    }


def make(name: str) -> dict[str, Any]:
    """CSR parts on the device (indptr int64, indices int32, data float32) and the planted labels on the host."""
    import cupy as cp

    s = SPECS[name]
    on_host = tables(s)
    on_device = {k: cp.asarray(v) for k, v in on_host.items() if k != "mt"}
    order = ("threshold", "library", "profile", "batch", "program", "weight")
    layout = [("n_cells", "i4"), ("n_genes", "i4"), ("seed", "u4"), ("n_clusters", "i4"), ("n_batches", "i4")]
    struct = np.zeros(1, np.dtype(layout + [(k, "u8") for k in order], align=True))
    struct[0] = (s.cells, s.genes, s.seed, s.clusters, s.batches, *(on_device[k].data.ptr for k in order))
    source = Path(__file__).with_suffix(".cu").read_text()
    module = cp.RawModule(code=source, options=("--std=c++17", "-fmad=false"))
    module.get_global("t").copy_from_host(struct.ctypes.data, struct.nbytes)
    entries, grid = module.get_function("entries"), ((s.cells * 32 + 255) // 256,)
    indptr = cp.zeros(s.cells + 1, cp.int64)
    null = np.uint64(0)
    entries(grid, (256,), (null, indptr, null, null))
    indptr = cp.cumsum(indptr)
    nnz = int(indptr[-1])
    indices, data = cp.empty(nnz, cp.int32), cp.empty(nnz, cp.float32)
    entries(grid, (256,), (indptr, null, indices, data))
    cluster, batch = cp.empty(s.cells, cp.int32), cp.empty(s.cells, cp.int32)
    module.get_function("labels")(((s.cells + 255) // 256,), (256,), (cluster, batch))
    return {
        "indptr": indptr,
        "indices": indices,
        "data": data,
        "cluster": cluster.get(),
        "batch": batch.get(),
        "mt": on_host["mt"],
        "shape": (s.cells, s.genes),
    }


def checksum(d: dict[str, Any]) -> tuple[int, int, int]:
    """(values, sum of the counts, sum of (gene + 1) * count), as in CHECKSUMS."""
    import cupy as cp

    nnz = int(d["data"].size)
    total = weighted = 0
    for first in range(0, nnz, 1 << 28):
        x = d["data"][first : first + (1 << 28)].astype(cp.uint64)
        total += int(x.sum())
        weighted += int((x * (d["indices"][first : first + (1 << 28)].astype(cp.uint64) + cp.uint64(1))).sum())
    return nnz, total, weighted % 2**64


if __name__ == "__main__":
    which = sys.argv[1]
    print(json.dumps({"data": which, "checksum": checksum(make(which)), "expected": CHECKSUMS[which]}))
