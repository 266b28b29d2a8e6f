"""Reading and writing h5ad and Zarr beside anndata: pairs of runs, wall and CPU time, and the floor.

    python bench/e2e/bench_io.py                                  100 000 x 20 000, h5ad, read and write
    python bench/e2e/bench_io.py --formats zarr2,zarr3,zarr2-scwarp,zarr3-scwarp --jobs read
    python bench/e2e/bench_io.py --sizes 20000x20000 --formats gzip --jobs read --pairs 3
    python bench/e2e/bench_io.py --device cuda                    X of scwarp's reads goes to the device

The data come from scwarp.datasets.simulate (about 1 500 values per cell). Every run is a process of its own, and the
two programs take turns, so that a noisy machine disturbs both; what is timed is the call alone, with the file in the
page cache. ``cpu`` is user + system time of the call over all threads. Floors: of a compressed file, unpacking its
chunks with libdeflate (scwarp's build of it is the same library) on all threads; of a plain one, reading the file and
copying it once. Formats: ``gzip`` and ``none`` are h5ad; ``zarr2`` (Blosc with LZ4) and ``zarr3`` (zstd) are stores as
anndata writes them, ``-scwarp`` the same by scwarp; their floor is unpacking the chunks by numcodecs on all threads,
each into one buffer again and again: no fresh memory, no files.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

Record = dict[str, Any]


def timed(call: Any) -> Record:
    before, start = os.times(), time.perf_counter()
    result = call()
    wall, after = time.perf_counter() - start, os.times()
    x = getattr(result, "X", None)
    nnz = int(x.nnz) if hasattr(x, "nnz") else -1
    return {"wall": wall, "user": after.user - before.user, "system": after.system - before.system, "nnz": nnz}


def make(path: Path, cells: int, genes: int) -> None:
    """The data as anndata (and, where the name says so, scwarp) writes them in the format of ``path``."""
    import anndata

    import scwarp as scw

    adata = scw.datasets.simulate(cells, genes, seed=1)
    scratch = path.with_suffix(".part")
    if scratch.is_dir():
        shutil.rmtree(scratch)
    form = form_of(path)
    if not form.startswith("zarr"):
        adata.write_h5ad(scratch, compression="gzip" if form == "gzip" else None)
    elif form.endswith("scwarp"):
        scw.write_zarr(adata, scratch, **OURS[form[:5]])
    else:
        with anndata.settings.override(zarr_write_format=int(form[4])):
            adata.write_zarr(scratch)
    scratch.rename(path)


OURS: dict[str, Any] = {"zarr2": {}, "zarr3": {"zarr_format": 3, "compression": "zstd"}}


def path_of(folder: Path, size: str, form: str) -> Path:
    return folder / f"{size}.{form}.{'zarr' if form.startswith('zarr') else 'h5ad'}"


def form_of(path: Path) -> str:
    return path.name.split(".")[1]


def files_of(path: Path) -> list[Path]:
    return sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]


def read(path: Path, who: str, device: str) -> Record:
    import anndata
    import h5py  # noqa: F401
    import scipy.sparse  # noqa: F401

    import scwarp as scw

    is_zarr = path.is_dir()
    if is_zarr:
        import zarr  # noqa: F401
    if who == "anndata":
        return timed(lambda: (anndata.read_zarr if is_zarr else anndata.read_h5ad)(path))
    ours: Any = scw.read_zarr if is_zarr else scw.read_h5ad
    if device == "cpu":
        return timed(lambda: ours(path))
    import cupy

    def to_device() -> Any:
        adata = ours(path, device=device)
        cupy.cuda.Device().synchronize()
        return adata

    cupy.zeros(1).sum()
    return timed(to_device)


def write(path: Path, who: str, compression: str) -> Record:
    import anndata

    import scwarp as scw

    target = path.with_suffix(f".{who}.written")
    if path.is_dir():
        adata = anndata.read_zarr(path)
        if target.exists():
            shutil.rmtree(target)
        try:
            if who == "scwarp":
                record = timed(lambda: scw.write_zarr(adata, target, **OURS[compression[:5]]))
            else:
                with anndata.settings.override(zarr_write_format=int(compression[4])):
                    record = timed(lambda: adata.write_zarr(target))
            record["bytes"] = sum(p.stat().st_size for p in files_of(target))
        finally:
            shutil.rmtree(target, ignore_errors=True)
        return record
    adata = anndata.read_h5ad(path)
    try:
        if who == "anndata":
            record = timed(lambda: adata.write_h5ad(target, compression="gzip" if compression == "gzip" else None))
        else:
            level = {"gzip": {}, "none": {"compression_level": 0}}[compression]
            record = timed(lambda: scw.write_h5ad(adata, target, **level))
        record["bytes"] = target.stat().st_size
    finally:
        target.unlink(missing_ok=True)
    return record


def on_all_threads(work: Any, items: list[Any]) -> None:
    """``work`` on a part of the items in every thread that the process may use."""
    n = min(len(os.sched_getaffinity(0)), len(items))
    threads = [threading.Thread(target=work, args=(items[t::n],)) for t in range(n)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()


def floor_of_zarr(path: Path) -> Record:
    import numpy as np
    from numcodecs import blosc, zstd

    blosc.use_threads = False  # of its own
    packed: list[tuple[bytes, int]] = []
    for name in ("X/data", "X/indices"):
        for file in files_of(path / name):
            if file.name == ".zarray":
                bytes_out = json.loads(file.read_text())["chunks"][0] * 4
            elif file.name == "zarr.json":
                grid = json.loads(file.read_text())["chunk_grid"]["configuration"]
                bytes_out = grid["chunk_shape"][0] * 4
        packed += [(p.read_bytes(), bytes_out) for p in files_of(path / name) if p.name.isdigit()]
    unpack = blosc.decompress if form_of(path)[4] == "2" else zstd.decompress

    def work(mine: list[tuple[bytes, int]]) -> None:
        out = np.empty(max(n for _, n in mine), np.uint8)
        for chunk, n in mine:
            unpack(chunk, out[:n])

    return timed(lambda: on_all_threads(work, packed))


def floor(path: Path, compression: str) -> Record:
    """Reads the file through one buffer and copies as much; gzip: unpacks its chunks by libdeflate."""
    import numpy as np

    if path.is_dir():
        return floor_of_zarr(path)
    if compression == "none":

        def copy() -> None:
            buffer, to = np.empty(1 << 24, np.uint8), np.zeros(path.stat().st_size, np.uint8)
            at = 0
            with path.open("rb", buffering=0) as f:
                while n := f.readinto(memoryview(buffer)):
                    to[at : at + n] = buffer[:n]
                    at += n

        return timed(copy)
    import ctypes
    import ctypes.util

    import h5py

    lib = ctypes.CDLL(ctypes.util.find_library("deflate") or "libdeflate.so.0")
    lib.libdeflate_alloc_decompressor.restype = ctypes.c_void_p
    lib.libdeflate_zlib_decompress.argtypes = [ctypes.c_void_p] + 5 * [ctypes.c_void_p]
    packed: list[tuple[Any, int]] = []
    with h5py.File(path) as f:
        for name in ("X/data", "X/indices"):
            d = f[name]
            bytes_out = int(np.prod(d.chunks)) * d.dtype.itemsize
            starts = range(0, d.shape[0], d.chunks[0])
            packed += [(np.frombuffer(d.id.read_direct_chunk((s,))[1], np.uint8), bytes_out) for s in starts]

    def work(mine: list[tuple[Any, int]]) -> None:
        # A buffer per thread: the floor is the unpacking alone.
        codec, got = lib.libdeflate_alloc_decompressor(), ctypes.c_size_t()
        out = np.empty(max(n for _, n in mine), np.uint8)
        for chunk, n in mine:
            if lib.libdeflate_zlib_decompress(
                codec, chunk.ctypes.data, len(chunk), out.ctypes.data, n, ctypes.addressof(got)
            ):
                raise RuntimeError("a chunk cannot be unpacked")

    record = timed(lambda: on_all_threads(work, packed))
    record["bytes_out"] = sum(n for _, n in packed)
    record["bytes_in"] = sum(len(c) for c, _ in packed)
    return record


def child(*arguments: str) -> Record:
    out = subprocess.run([sys.executable, __file__, "--child", *arguments], check=True, capture_output=True, text=True)
    return json.loads(out.stdout.splitlines()[-1])


def summary(records: list[Record]) -> Record:
    return {k: median(r[k] for r in records) for k in records[0]}


def show(label: str, r: Record, extra: str = "") -> None:
    print(f"{label:<34} {r['wall']:8.2f} s  user {r['user']:7.2f}  system {r['system']:6.2f}  {extra}", flush=True)


def turn(job: str, path: Path, last: str, who: str) -> Record:
    return child(job, str(path), who, last)


def compare(
    label: str, other: str, run: Callable[[str], Record], pairs: int, least: Callable[[], Record] | None = None
) -> None:
    """``run(who)`` for scwarp and another in turns, and what both cannot do without."""
    ours: list[Record] = []
    theirs: list[Record] = []
    floors: list[Record] = []
    for pair in range(pairs):
        # Whose turn is first changes: the second one finds memory that the first one has just given back.
        both = [("scwarp", ours), (other, theirs)]
        for who, records in both if pair % 2 else both[::-1]:
            records.append(run(who))
        if least is not None:
            floors.append(least())
    wall = median(t["wall"] / o["wall"] for o, t in zip(ours, theirs, strict=True))
    cpu = median(
        (t["user"] + t["system"]) / (o["user"] + o["system"] + 1e-9) for o, t in zip(ours, theirs, strict=True)
    )
    show(f"  {label} {other}", summary(theirs))
    show(f"  {label} scwarp", summary(ours), f"{wall:.2f} x faster, {cpu:.2f} x less CPU time")
    if "bytes" in ours[0]:
        print(f"  {'file':<32} {ours[0]['bytes'] / theirs[0]['bytes']:8.3f} of {other}'s")
    if floors:
        over = median(o["wall"] / f["wall"] for o, f in zip(ours, floors, strict=True))
        show(f"  {label} floor", summary(floors), f"scwarp is at {over:.2f} of it")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="100000x20000")
    parser.add_argument("--jobs", default="read,write")
    every = "gzip, none, zarr2, zarr3, zarr2-scwarp, zarr3-scwarp"
    parser.add_argument("--formats", default="gzip,none", help=f"some of {every}")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=Path("/tmp/scwarp_bench_io"))
    parser.add_argument("--keep", action="store_true", help="leave the generated files")
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    a = parser.parse_args()
    if a.child:
        job, path, *rest = a.child
        if job == "make":
            make(Path(path), *map(int, rest))
            print("{}")
        else:
            print(json.dumps({"read": read, "write": write, "floor": floor}[job](Path(path), *rest)))
        return
    a.folder.mkdir(parents=True, exist_ok=True)
    for size in a.sizes.split(","):
        cells, genes = map(int, size.split("x"))
        for compression in a.formats.split(","):
            path = path_of(a.folder, size, compression)
            if not path.exists():
                child("make", str(path), str(cells), str(genes))
            for file in files_of(path):
                with file.open("rb", buffering=0) as f:  # into the page cache
                    while f.read(1 << 24):
                        pass
            print(f"{size} {compression}: {sum(p.stat().st_size for p in files_of(path)) / 1e6:.0f} MB")
            for job in a.jobs.split(","):
                last = a.device if job == "read" else compression
                run = partial(turn, job, path, last)
                floor_too = partial(child, "floor", str(path), compression) if job == "read" else None
                compare(job, "anndata", run, a.pairs, floor_too)
            if not a.keep:
                shutil.rmtree(path) if path.is_dir() else path.unlink()


if __name__ == "__main__":
    main()
