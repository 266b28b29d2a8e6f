"""CuPy and the layouts of the tests on a GPU. Importing this skips a test module where there is no device."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp

import scwarp as scw

cp = pytest.importorskip("cupy", reason="CuPy is not installed")
if scw._core.unavailable_reason("cuda"):
    pytest.skip("no CUDA device: " + scw._core.unavailable_reason("cuda"), allow_module_level=True)
import cupyx.scipy.sparse as csp  # noqa: E402

TO_GPU = {
    "csr": lambda x: csp.csr_matrix(sp.csr_matrix(x)),
    "csc": lambda x: csp.csc_matrix(sp.csc_matrix(x)),
    "dense": lambda x: cp.asarray(x.toarray()),
}
TO_GPU_OR_FORTRAN = TO_GPU | {"fortran": lambda x: cp.asfortranarray(cp.asarray(x.toarray()))}


def host(x: Any) -> np.ndarray:
    """A matrix of any kind as a dense NumPy array."""
    x = x.get() if hasattr(x, "get") else x
    return x.toarray() if sp.issparse(x) else np.asarray(x)
