"""Shared fixtures. Tests that need ../shared/data skip visibly without it (SCWARP_SHARED names it elsewhere)."""

from __future__ import annotations

import os
from pathlib import Path

import anndata as ad
import numpy as np
import pytest
import scipy.sparse as sp

import scwarp as scw

# Host data are computed on the CPU unless a test asks for a device, also on a machine that has one.
scw.settings.device = "cpu"

ROOT = Path(__file__).resolve().parents[2]
SHARED = Path(os.environ.get("SCWARP_SHARED", ROOT.parent / "shared"))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    if not (SHARED / "data").is_dir():
        pytest.skip("real data not found: set SCWARP_SHARED to the folder that holds data/")
    return SHARED / "data"


def rank_stably(patch: pytest.MonkeyPatch) -> None:
    """scanpy ranks with an unstable sort: with a stable one its ties go by index, as ours do."""
    import numba

    numba.njit(lambda x: x + 1)(1)  # numba knows np.argsort by its identity: it has to see it before it is replaced
    original = np.argsort
    patch.setattr(np, "argsort", lambda a, axis=-1, **_: original(a, axis=axis, kind="stable"))


def simulated_counts(n: int = 400, m: int = 300, seed: int = 0, density: float = 0.15) -> sp.csr_matrix:
    """Integer-valued float32 counts with an empty cell, an all-zero gene and a constant gene."""
    r = np.random.default_rng(seed)
    x = r.poisson(r.gamma(0.5, 2.0, m) * r.lognormal(0, 0.5, (n, 1)), (n, m)).astype(np.float32)
    x *= r.random((n, m)) < density * 3
    if n > 2 and m > 2:
        x[1] = 0
        x[:, 1] = 0
        x[:, 2] = 0
    return sp.csr_matrix(x)


@pytest.fixture
def counts() -> ad.AnnData:
    x = simulated_counts()
    a = ad.AnnData(x)
    a.obs_names = [f"cell{i}" for i in range(a.n_obs)]
    a.var_names = [f"gene{i}" for i in range(a.n_vars)]
    return a


LAYOUTS = {
    "csr": lambda x: sp.csr_matrix(x),
    "csr_array": lambda x: sp.csr_array(x),
    "csc": lambda x: sp.csc_matrix(x),
    "dense": lambda x: np.ascontiguousarray(x.toarray()),
    "fortran": lambda x: np.asfortranarray(x.toarray()),
    "float64": lambda x: sp.csr_matrix(x, dtype=np.float64),
    "int32": lambda x: sp.csr_matrix(x.astype(np.int32)),
    "int64_dense": lambda x: x.toarray().astype(np.int64),
    "int64_indices": lambda x: _wide(x),
}


def _wide(x: sp.csr_matrix) -> sp.csr_matrix:
    x = sp.csr_matrix(x)
    x.indptr, x.indices = x.indptr.astype(np.int64), x.indices.astype(np.int64)
    return x


@pytest.fixture(params=list(LAYOUTS))
def any_layout(request: pytest.FixtureRequest):
    return LAYOUTS[request.param]


def dense(x) -> np.ndarray:
    return x.toarray() if sp.issparse(x) else np.asarray(x)
