"""Run with a Python that has the wheel installed: imports fast and works without the source tree."""

import subprocess
import sys
import time

start = time.perf_counter()
import scwarp as scw  # noqa: E402

seconds = time.perf_counter() - start

import anndata as ad  # noqa: E402
import numpy as np  # noqa: E402

assert "site-packages" in scw.__file__, scw.__file__
a = ad.AnnData(np.array([[1, 3], [5, 0]], np.float32))
scw.pp.normalize_total(a, target_sum=8)
scw.pp.log1p(a)
np.testing.assert_allclose(a.X, np.log1p([[2, 6], [8, 0]]), rtol=1e-6)
slow = subprocess.run(
    [
        sys.executable,
        "-c",
        "import sys, scwarp; print(any(m in sys.modules for m in ('pandas', 'scipy.sparse', 'cupy')))",
    ],
    capture_output=True,
    text=True,
    check=True,
).stdout.strip()
assert slow == "False", "import scwarp pulls in pandas, scipy.sparse or cupy"
print(f"wheel: works, version {scw.__version__}, imported in {seconds:.2f} s")
