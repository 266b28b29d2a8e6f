"""Whatever happens while a file is written, its place holds the old file or the whole new one."""

from __future__ import annotations

import os
import random
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


def check_whole(path: Path) -> int:
    a = ad.read_h5ad(path)
    expected = numbered(int(a.uns["version"]))
    np.testing.assert_array_equal(a.X.indptr, expected.X.indptr)
    np.testing.assert_array_equal(a.X.indices, expected.X.indices)
    np.testing.assert_array_equal(a.X.data, expected.X.data)
    np.testing.assert_array_equal(a.obs["version"], expected.obs["version"])
    np.testing.assert_array_equal(a.obsm["X_pca"], expected.obsm["X_pca"])
    return int(a.uns["version"])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # fork in a process with threads: the pool is made for it
def test_killed_writers(tmp_path: Path) -> None:
    """SIGKILL at random moments (SCWARP_TEST_KILLS of them)."""
    target = tmp_path / "out.h5ad"
    data = [numbered(v) for v in range(4)]

    def writer(times: int) -> int:
        child = os.fork()
        if child == 0:
            done = False
            try:
                for k in range(times):
                    scw.write_h5ad(data[k % 4], target, compression_level=k % 3)
                done = True
            finally:
                os._exit(0 if done else 1)
        return child

    # How long four writes take in a child: the first of a forked process are slower than those of its parent.
    start = time.perf_counter()
    assert os.waitpid(writer(4), 0)[1] == 0
    span = time.perf_counter() - start
    scw.write_h5ad(data[0], target)
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
        # at most the name that a complete file has between two system calls
        left = [p for p in tmp_path.iterdir() if p != target]
        assert len(left) <= 1, left
    scw.write_h5ad(data[1], target)
    assert [p.name for p in tmp_path.iterdir()] == ["out.h5ad"] and check_whole(target) == 1
    assert len(seen) > 1


def test_abandoned_temporaries_go(tmp_path: Path) -> None:
    for name in (".out.h5ad.1-0.tmp", ".out.h5ad.999999-12.tmp"):
        (tmp_path / name).write_bytes(b"half")
    keep = [".other.h5ad.1-0.tmp", ".out.h5ad.x-0.tmp", ".out.h5ad.tmp", "out.h5ad.1-0.tmp"]
    for name in keep:
        (tmp_path / name).write_bytes(b"not ours")
    scw.write_h5ad(numbered(1), tmp_path / "out.h5ad")
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([*keep, "out.h5ad"])


def limited(tmp_path: Path, body: str) -> subprocess.CompletedProcess[str]:
    """Runs `body` in a process in which no file can grow beyond 100 kB."""
    script = f"""
        import resource, sys
        sys.path[:0] = [{str(Path(__file__).parent)!r}, {str(Path(scw.__file__).parents[1])!r}]
        from test_write_safety import numbered
        import scwarp as scw
        big, small = numbered(3), numbered(2, 20)[:, :10].copy()
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
    """
    code = textwrap.dedent(script) + textwrap.dedent(body)
    return subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("level", [0, 1])
def test_no_room(tmp_path: Path, level: int) -> None:
    target = tmp_path / "out.h5ad"
    scw.write_h5ad(numbered(1), target)
    old = target.read_bytes()
    done = limited(
        tmp_path,
        f"""
        for _ in range(3):
            try:
                scw.write_h5ad(big, "out.h5ad", compression_level={level})
            except OSError as e:
                print(e)
        scw.write_h5ad(small, "small.h5ad")
        """,
    )
    assert done.returncode == 0, done.stderr
    messages = done.stdout.splitlines()
    assert len(messages) == 3 and not done.stderr.strip()
    for message in messages:
        assert "out.h5ad" in message and "File too large" in message, message
    assert target.read_bytes() == old
    assert ad.read_h5ad(tmp_path / "small.h5ad").shape == (20, 10)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.h5ad", "small.h5ad"]


def test_full_disk(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("cannot mount a small disk")
    try:
        scw.write_h5ad(numbered(1)[:50].copy(), disk / "out.h5ad")
        old = (disk / "out.h5ad").read_bytes()
        with pytest.raises(OSError, match=r"out\.h5ad.*No space left on device"):
            scw.write_h5ad(numbered(2), disk / "out.h5ad")
        assert (disk / "out.h5ad").read_bytes() == old and len(list(disk.iterdir())) == 1
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


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_read_only(tmp_path: Path) -> None:
    a = numbered(1)[:5].copy()
    target = tmp_path / "out.h5ad"
    target.write_bytes(b"old")
    target.chmod(0o444)
    with pytest.raises(OSError, match=r"out\.h5ad.*Permission denied"):
        scw.write_h5ad(a, target)
    tmp_path.chmod(0o555)
    with pytest.raises(OSError, match=r"new\.h5ad.*Permission denied"):
        scw.write_h5ad(a, tmp_path / "new.h5ad")
    tmp_path.chmod(0o755)
    assert target.read_bytes() == b"old"


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
