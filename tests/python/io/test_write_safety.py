"""Whatever happens while a file is written, its place holds the old file or the whole new one."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import anndata as ad
import numpy as np
import pytest
import scipy.sparse as sp

import scwarp as scw

pytestmark = pytest.mark.filterwarnings("ignore:Consolidated metadata", "ignore:.*zarr.*")
ENDINGS = ["h5ad", "zarr"]
KILLS = int(os.environ.get("SCWARP_TEST_KILLS", "25"))
CELLS, GENES = 3000, 400


def numbered(version: int, cells: int = CELLS) -> ad.AnnData:
    """Every value follows from the version: a mixture of two shows."""
    r = np.random.default_rng(version)
    x = sp.random(cells, GENES, 0.1, "csr", np.float32, random_state=r)
    x.data[:] = version + np.arange(x.nnz) % 7
    a = ad.AnnData(x)
    a.obs["version"] = np.full(cells, version)
    a.obsm["X_pca"] = np.full((cells, 5), version, np.float32)
    a.uns["version"] = version
    return a


def write(a: ad.AnnData, path: Path | str, level: int | None = None) -> None:
    if str(path).rstrip("/").endswith(".zarr"):
        scw.write_zarr(a, path, compression="lz4" if level is None or level > 0 else None)
    elif str(path).endswith(".h5"):
        scw.write_10x_h5(a, path, compression_level=level)
    else:
        scw.write_h5ad(a, path, compression_level=level)


def read(path: Path | str) -> ad.AnnData:
    if str(path).endswith(".h5"):
        return scw.read_10x_h5(path)
    return ad.read_zarr(path) if str(path).endswith(".zarr") else ad.read_h5ad(path)


def contents(path: Path) -> dict[str, bytes]:
    """Of a file, or of all files in a folder."""
    files = [p for p in path.rglob("*") if p.is_file()] if path.is_dir() else [path]
    return {str(p.relative_to(path)): p.read_bytes() for p in files}


def check_whole(path: Path) -> int:
    a = read(path)
    expected = numbered(int(a.uns["version"]))
    np.testing.assert_array_equal(a.X.indptr, expected.X.indptr)
    np.testing.assert_array_equal(a.X.indices, expected.X.indices)
    np.testing.assert_array_equal(a.X.data, expected.X.data)
    np.testing.assert_array_equal(a.obs["version"], expected.obs["version"])
    np.testing.assert_array_equal(a.obsm["X_pca"], expected.obsm["X_pca"])
    return int(a.uns["version"])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # fork in a process with threads: the pool is made for it
@pytest.mark.parametrize("ending", ENDINGS)
def test_killed_writers(tmp_path: Path, ending: str) -> None:
    """SIGKILL at random moments (SCWARP_TEST_KILLS of them)."""
    inputs = tmp_path / "in"
    inputs.mkdir()
    target = tmp_path / f"out.{ending}"
    data = [numbered(v) for v in range(4)]
    for v, a in enumerate(data):
        scw.write_h5ad(a, inputs / f"{v}.h5ad")

    def put(k: int) -> None:
        """From memory, or from file to file in many small chunks."""
        if ending == "h5ad":
            scw.write_h5ad(data[k % 4], target, compression_level=k % 3)
        elif k % 3 == 0:
            scw.write_zarr(data[k % 4], target, zarr_format=3, shards=True)
        else:
            scw.convert(inputs / f"{k % 4}.h5ad", target, overwrite=True, zarr_format=2 + k % 2, chunk_bytes=1 << 14)

    def writer(times: int) -> int:
        child = os.fork()
        if child == 0:
            done = False
            try:
                for k in range(times):
                    put(k)
                done = True
            finally:
                os._exit(0 if done else 1)
        return child

    # How long four writes take in a child: the first of a forked process are slower than those of its parent.
    start = time.perf_counter()
    assert os.waitpid(writer(4), 0)[1] == 0
    span = time.perf_counter() - start
    put(0)
    chance = random.Random(0)
    seen: set[int] = set()
    kills = 0
    while kills < KILLS or (len(seen) < 2 and kills < 10 * KILLS):
        kills += 1
        child = writer(1000)
        time.sleep(chance.uniform(0, span))
        os.kill(child, signal.SIGKILL)
        assert os.waitpid(child, 0)[1] == signal.SIGKILL
        seen.add(check_whole(target))
        # at most the name that a complete file has between two system calls; of a folder, the new or the old one
        left = [p for p in tmp_path.iterdir() if p not in (target, inputs)]
        assert len(left) <= 1 and all(p.name.endswith(".tmp") for p in left), left
    put(1)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in", target.name] and check_whole(target) == 1
    assert len(seen) > 1


@pytest.mark.parametrize("ending", ENDINGS)
def test_abandoned_temporaries_go(tmp_path: Path, ending: str) -> None:
    import fcntl

    out = f"out.{ending}"
    (tmp_path / f".{out}.1-0.tmp").write_bytes(b"half")
    (tmp_path / f".{out}.999999-12.tmp").mkdir()
    (tmp_path / f".{out}.999999-12.tmp/X").write_bytes(b"half")
    keep = [f".other.{ending}.1-0.tmp", f".{out}.x-0.tmp", f".{out}.tmp", f"{out}.1-0.tmp"]
    for name in keep:
        (tmp_path / name).write_bytes(b"not ours")
    at_work = tmp_path / f".{out}.2-0.tmp"
    at_work.mkdir()
    lock = os.open(at_work, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    write(numbered(1), tmp_path / out)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([*keep, at_work.name, out])
    os.close(lock)
    write(numbered(1), tmp_path / out)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([*keep, out])


def limited(tmp_path: Path, body: str) -> subprocess.CompletedProcess[str]:
    """Runs `body` in a process in which no file can grow beyond 100 kB."""
    script = f"""
        import resource, sys
        sys.path[:0] = [{str(Path(__file__).parent)!r}, {str(Path(scw.__file__).parents[1])!r}]
        from test_write_safety import numbered, write
        import scwarp as scw
        big, small = numbered(3), numbered(2, 20)[:, :10].copy()
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
    """
    code = textwrap.dedent(script) + textwrap.dedent(body)
    return subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("level", [0, 1])
@pytest.mark.parametrize("ending", [*ENDINGS, "h5"])
def test_no_room(tmp_path: Path, level: int, ending: str) -> None:
    target = tmp_path / f"out.{ending}"
    write(numbered(1), target)
    old = contents(target)
    done = limited(
        tmp_path,
        f"""
        for _ in range(3):
            try:
                write(big, "out.{ending}", {level})
            except OSError as e:
                print(e)
        write(small, "small.{ending}")
        """,
    )
    assert done.returncode == 0, done.stderr
    messages = done.stdout.splitlines()
    assert len(messages) == 3 and not done.stderr.strip()
    for message in messages:
        assert f"out.{ending}" in message and "File too large" in message, message
    assert contents(target) == old
    assert read(tmp_path / f"small.{ending}").shape == (20, 10)
    assert sorted(p.name for p in tmp_path.iterdir()) == [f"out.{ending}", f"small.{ending}"]


@pytest.mark.parametrize("ending", ENDINGS)
def test_full_disk(tmp_path: Path, ending: str) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    target = disk / f"out.{ending}"
    size = "300k" if ending == "h5ad" else "1M"  # a page for each of its small files
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("cannot mount a small disk")
    try:
        write(numbered(1)[:50].copy(), target)
        old = contents(target)
        with pytest.raises(OSError, match=rf"out\.{ending}.*No space left on device"):
            write(numbered(2), target, None if ending == "h5ad" else 0)
        assert contents(target) == old and len(list(disk.iterdir())) == 1
        write(numbered(3)[:50].copy(), target)
        assert read(target).uns["version"] == 3
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_places_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a = numbered(1)[:5].copy()
    (tmp_path / "folder.h5ad").mkdir()
    with pytest.raises(OSError, match=r"folder\.h5ad.*is a folder"):
        scw.write_h5ad(a, tmp_path / "folder.h5ad")
    with pytest.raises(OSError, match=r"nowhere.*not a folder"):
        scw.write_h5ad(a, tmp_path / "nowhere" / "x.h5ad")
    with pytest.raises(OSError, match=r"/proc/x\.h5ad.*No such file|Permission"):
        scw.write_h5ad(a, "/proc/x.h5ad")
    os.mkfifo(tmp_path / "pipe.h5ad")
    with pytest.raises(OSError, match="not a regular file"):
        scw.write_h5ad(a, tmp_path / "pipe.h5ad")
    monkeypatch.chdir(tmp_path)
    scw.write_h5ad(a, "here.h5ad")
    (tmp_path / "link.h5ad").symlink_to("here.h5ad")
    (tmp_path / "here.h5ad").chmod(0o640)
    scw.write_h5ad(numbered(2)[:5].copy(), "link.h5ad")
    assert (tmp_path / "link.h5ad").is_symlink() and ad.read_h5ad("here.h5ad").uns["version"] == 2
    assert (tmp_path / "here.h5ad").stat().st_mode & 0o777 == 0o640


def test_places_of_stores_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a = numbered(1)[:5].copy()
    (tmp_path / "file.zarr").write_text("precious")
    (tmp_path / "folder.zarr").mkdir()
    (tmp_path / "folder.zarr/file").write_text("precious")
    os.mkfifo(tmp_path / "pipe.zarr")
    for name in ("file", "folder", "pipe"):
        with pytest.raises(OSError, match=rf"{name}\.zarr.*exists and is not a Zarr store"):
            write(a, tmp_path / f"{name}.zarr")
    with pytest.raises(OSError, match=r"nowhere.*not a folder"):
        write(a, tmp_path / "nowhere" / "x.zarr")
    with pytest.raises(OSError, match=r"/proc/x\.zarr.*(No such file|Permission)"):
        write(a, "/proc/x.zarr")
    monkeypatch.chdir(tmp_path)
    write(a, "here.zarr/")
    (tmp_path / "link.zarr").symlink_to("here.zarr")
    (tmp_path / "here.zarr").chmod(0o750)
    write(numbered(2)[:5].copy(), "link.zarr")
    assert (tmp_path / "link.zarr").is_symlink() and read("here.zarr").uns["version"] == 2
    assert (tmp_path / "here.zarr").stat().st_mode & 0o777 == 0o750
    assert not any(p.name.startswith(".") for p in tmp_path.iterdir())
    assert (tmp_path / "file.zarr").read_text() == (tmp_path / "folder.zarr/file").read_text() == "precious"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("ending", [*ENDINGS, "h5"])
def test_read_only(tmp_path: Path, ending: str) -> None:
    a = numbered(1)[:5].copy()
    target = tmp_path / f"out.{ending}"
    write(a, target)
    old = contents(target)
    target.chmod(0o555 if ending == "zarr" else 0o444)

    def refused(path: Path) -> None:
        """Root may write everywhere: nobody tries."""
        child = os.fork()
        if child == 0:
            code = 1
            try:
                if os.geteuid() == 0:
                    os.setgid(65534)
                    os.setuid(65534)
                write(a, path)
            except OSError as e:
                code = 7 if path.name in str(e) and "Permission denied" in str(e) else 8
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7

    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_uid == os.geteuid() and folder.stat().st_mode & 0o005 != 0o005:
            folder.chmod(folder.stat().st_mode | 0o055)  # pytest's are its user's alone
    tmp_path.chmod(0o777)
    refused(target)
    tmp_path.chmod(0o555)
    refused(tmp_path / f"new.{ending}")
    tmp_path.chmod(0o755)
    assert contents(target) == old and [p.name for p in tmp_path.iterdir()] == [target.name]
    target.chmod(0o755)


def test_folder_that_vanishes(tmp_path: Path) -> None:
    """The folder is removed by the progress of writing: the file without a name has nowhere to go."""
    folder = tmp_path / "folder"
    folder.mkdir()

    child = os.fork()
    if child == 0:
        try:
            for k in range(1000):
                scw.write_h5ad(numbered(k % 4), folder / "x.h5ad")
        except OSError as e:
            os._exit(7 if "x.h5ad" in str(e) else 8)
        os._exit(9)
    time.sleep(0.2)
    for _ in range(1000):
        (folder / "x.h5ad").unlink(missing_ok=True)
        try:
            folder.rmdir()
            break
        except OSError:
            continue
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("vanishes", ["source", "target"])
def test_stores_that_vanish(tmp_path: Path, vanishes: str) -> None:
    """The folder that is read is removed, or the one for the result moved away: an error, and never half a store."""
    import shutil

    for name in ("source", "target"):
        (tmp_path / name).mkdir()
    source, target = tmp_path / "source/a.zarr", tmp_path / "target/b.zarr"
    for k in range(4):
        scw.write_h5ad(numbered(k), tmp_path / "a.h5ad")
        scw.convert(tmp_path / "a.h5ad", source, overwrite=True, chunk_bytes=1 << 13, zarr_format=2 + k % 2)
        child = os.fork()
        if child == 0:
            try:
                for _ in range(1000):
                    scw.convert(source, target, overwrite=True, chunk_bytes=1 << 13)
            except (OSError, ValueError) as e:
                os._exit(7 if f"{vanishes}/" in str(e) else 8)
            finally:
                os._exit(9)
        time.sleep(0.3 + 0.05 * k)
        if vanishes == "source":
            shutil.rmtree(source)
        else:
            target.parent.rename(tmp_path / f"away {k}")
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        (tmp_path / "target").mkdir(exist_ok=True)
        for store in tmp_path.rglob("b.zarr"):
            assert check_whole(store) <= k


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_reading_what_is_replaced(tmp_path: Path) -> None:
    """A store that is exchanged and removed while it is read: the old one, the new one, or an error."""
    target = tmp_path / "a.zarr"
    scw.write_h5ad(numbered(1), tmp_path / "1.h5ad")
    scw.write_h5ad(numbered(2), tmp_path / "2.h5ad")
    how = {"overwrite": True, "chunk_bytes": 1 << 13}
    scw.convert(tmp_path / "1.h5ad", target, **how)
    child = os.fork()
    if child == 0:
        for k in range(10_000):
            scw.convert(tmp_path / f"{k % 2 + 1}.h5ad", target, **how)
        os._exit(0)
    try:
        whole = 0
        end = time.perf_counter() + 5
        while time.perf_counter() < end:
            try:
                scw.convert(target, tmp_path / "copy.zarr", overwrite=True, chunk_bytes=1 << 13)
            except OSError:
                continue
            except ValueError as e:
                assert "has no" in str(e) or "is not a Zarr group" in str(e), e
                continue
            check_whole(tmp_path / "copy.zarr")
            whole += 1
        assert whole > 0
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


WRITERS = {
    "x.h5ad": scw.write_h5ad,
    "x.zarr": scw.write_zarr,
    "x.h5": scw.write_10x_h5,
    "x_mtx": scw.write_10x_mtx,
}


@pytest.mark.parametrize("name", WRITERS)
def test_links_to_what_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    a = ad.AnnData(np.ones((3, 2), "f4"))
    write_it = WRITERS[name]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "real").mkdir()
    for shown, link in (("one", Path("real") / name), ("two", Path("one")), ("absolute", tmp_path / "real" / name)):
        (tmp_path / f"{shown}_{name}").symlink_to(link if shown != "two" else f"one_{name}")
        write_it(a, f"{shown}_{name}")
        assert (tmp_path / f"{shown}_{name}").is_symlink()
        assert [p.name for p in (tmp_path / "real").iterdir()] == [name]
        target = tmp_path / "real" / name
        shutil.rmtree(target) if target.is_dir() else target.unlink()
    (tmp_path / f"lost_{name}").symlink_to(Path("nowhere") / name)
    with pytest.raises(OSError, match=r"nowhere' is not a folder"):
        write_it(a, f"lost_{name}")
    (tmp_path / f"circle_{name}").symlink_to(f"circle_{name}")
    with pytest.raises(OSError, match="circle"):
        write_it(a, f"circle_{name}")
    assert not any(p.name.startswith(".") for p in (*tmp_path.iterdir(), *(tmp_path / "real").iterdir()))
    if name == "x.h5ad":  # as anndata
        (tmp_path / "theirs.h5ad").symlink_to("real/theirs.h5ad")
        a.write_h5ad("theirs.h5ad")
        assert (tmp_path / "theirs.h5ad").is_symlink() and (tmp_path / "real/theirs.h5ad").is_file()
