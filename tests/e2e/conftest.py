"""The program as users run it. SCWARP_PROGRAM names it; default: the dev build."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from program import Run

ROOT = Path(__file__).resolve().parents[2]
SHARED = Path(os.environ.get("SCWARP_SHARED", ROOT.parent / "shared"))


@pytest.fixture(scope="session")
def program() -> Path:
    path = Path(os.environ.get("SCWARP_PROGRAM", ROOT / "build" / "dev" / "cli" / "scwarp"))
    if not path.exists():
        pytest.skip(f"the program is not built: {path}")
    return path


@pytest.fixture(scope="session")
def scwarp(program: Path) -> Run:
    def run(*args: object, check: int | None = 0, **kwargs: object) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [str(program), *map(str, args)], capture_output=True, text=True, timeout=300, check=False, **kwargs
        )
        if check is not None:
            assert done.returncode == check, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    return run


@pytest.fixture(scope="session")
def simulated(scwarp: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "simulated.h5ad"
    scwarp("simulate", "-o", path, "--n-cells", 800, "--n-genes", 2000, "--n-clusters", 4, "--mean-counts", 1500)
    return path


@pytest.fixture(scope="session")
def shared_data() -> Path:
    if not (SHARED / "data").is_dir():
        pytest.skip("real data not found: set SCWARP_SHARED to the folder that holds data/")
    return SHARED / "data"
