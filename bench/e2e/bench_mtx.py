"""read_10x_mtx and write_10x_mtx beside scanpy and scipy: pairs of runs, wall and CPU time, and the floor.

    python bench/e2e/bench_mtx.py                       20 000 x 20 000
    python bench/e2e/bench_mtx.py --cells 100000 --pairs 1

The counts come from scwarp.datasets.simulate (about 1 500 values per cell), in a folder of version 2 (plain) and two of
version 3: one gzip stream as gzip(1) and Cell Ranger write it, and members of 64 KiB as write_10x_mtx and bgzip write
them. Every run is a process of its own; what is timed is the call alone, with the file in the page cache. ``cpu`` is
user + system time over all threads. Floors: reading the plain file through one buffer, and unpacking the stream with
zlib on one thread, which cannot be shared.
"""

from __future__ import annotations

import argparse
import gzip
import json
import shutil
import subprocess
import sys
import zlib
from functools import partial
from pathlib import Path

from bench_io import Record, compare, timed


def make(folder: Path, cells: int, genes: int) -> None:
    """plain, stream and members below ``folder``."""
    import scwarp as scw

    adata = scw.datasets.simulate(cells, genes, seed=1)
    scw.write_10x_mtx(adata, folder / "plain", version=2)
    scw.write_10x_mtx(adata, folder / "members")
    (folder / "stream").mkdir()
    for file in (folder / "members").iterdir():
        to = folder / "stream" / file.name
        if file.name.startswith("matrix"):
            with gzip.open(file) as unpacked, to.with_suffix("").open("wb") as out:
                shutil.copyfileobj(unpacked, out)
            subprocess.run(["gzip", "-6", str(to.with_suffix(""))], check=True)
        else:
            shutil.copy(file, to)


def read(folder: Path, who: str) -> Record:
    if who == "scanpy":
        import scanpy as sc

        return timed(lambda: sc.read_10x_mtx(folder, cache=False))
    import anndata  # noqa: F401
    import pandas  # noqa: F401
    import scipy.sparse  # noqa: F401

    import scwarp as scw

    return timed(lambda: scw.read_10x_mtx(folder))


def write(folder: Path, who: str) -> Record:
    import scwarp as scw

    adata = scw.read_10x_mtx(folder)
    to = folder.with_name(f"written-{who}")
    if who == "scwarp":
        record = timed(lambda: scw.write_10x_mtx(adata, to))
        record["bytes"] = (to / "matrix.mtx.gz").stat().st_size
        shutil.rmtree(to)
        return record
    import numpy as np
    import scipy.io

    target = to.with_suffix(".mtx.gz")
    counts = adata.X.T.astype(np.int64)

    def call() -> None:
        with gzip.open(target, "wb", compresslevel=6) as f:
            scipy.io.mmwrite(f, counts)

    record = timed(call)
    record["bytes"] = target.stat().st_size
    target.unlink()
    return record


def floor(folder: Path, _: str) -> Record:
    plain = folder / "matrix.mtx"
    if plain.exists():

        def through() -> None:
            buffer = bytearray(1 << 20)
            with plain.open("rb", buffering=0) as f:
                while f.readinto(buffer):
                    pass

        return timed(through)

    def unpack() -> None:
        with (folder / "matrix.mtx.gz").open("rb") as f:
            data = f.read()
        while data:
            d = zlib.decompressobj(31)
            while data and not d.eof:
                d.decompress(data, 1 << 20)
                data = d.unconsumed_tail
            data = d.unused_data

    return timed(unpack)


JOBS = {"read": read, "write": write, "floor": floor}


def child(job: str, folder: Path, who: str) -> Record:
    command = [sys.executable, __file__, "--child", job, str(folder), who]
    out = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(out.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=20000)
    parser.add_argument("--genes", type=int, default=20000)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=Path("/tmp/scwarp_bench_mtx"))
    parser.add_argument("--keep", action="store_true", help="leave the generated files")
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    a = parser.parse_args()
    if a.child:
        job, folder, *who = a.child
        print(json.dumps(JOBS[job](Path(folder), who[0] if who else "")))
        return
    top = a.folder / f"{a.cells}x{a.genes}"
    if not (top / "stream" / "matrix.mtx.gz").exists():
        shutil.rmtree(top, ignore_errors=True)
        top.mkdir(parents=True)
        make(top, a.cells, a.genes)
    for kind in ("plain", "stream", "members"):
        file = next((top / kind).glob("matrix.mtx*"))
        with file.open("rb", buffering=0) as f:  # into the page cache
            while f.read(1 << 24):
                pass
        print(f"{a.cells} x {a.genes} {kind}: {file.stat().st_size / 1e6:.0f} MB")
        least = None if kind == "members" else partial(child, "floor", top / kind, "")
        compare(f"read {kind}", "scanpy", partial(child, "read", top / kind), a.pairs, least)
    compare("write", "scipy", partial(child, "write", top / "members"), a.pairs)
    if not a.keep:
        shutil.rmtree(top)


if __name__ == "__main__":
    main()
