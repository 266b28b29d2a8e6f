"""Reads a file that scwarp wrote with whatever anndata is installed, and compares it with what went in.

python read_back.py FILE EXPECTED.json     (needs anndata, no scwarp)
"""

import json
import sys

import anndata
import numpy as np

path, expected_path = sys.argv[1:]
with open(expected_path) as f:
    expected = json.load(f)
a = anndata.read_h5ad(path)
found = {
    "shape": list(a.shape),
    "sum": float(a.X.sum()),
    "first cells": list(a.obs_names[:3]),
    "obs": sorted(a.obs.columns),
    "var": sorted(a.var.columns),
    "obsm": {k: float(np.abs(np.asarray(a.obsm[k], dtype=np.float64)).sum()) for k in sorted(a.obsm.keys())},
    "obsp": {k: int(a.obsp[k].nnz) for k in sorted(a.obsp.keys())},
    "layers": {k: float(a.layers[k].sum()) for k in sorted(a.layers.keys())},
    "uns": sorted(a.uns.keys()),
    "clusters": {str(k): int(v) for k, v in a.obs["leiden"].value_counts().items()},
    "markers": [str(x) for x in a.uns["rank_genes_groups"]["names"][0]],
    "raw": None if a.raw is None else list(a.raw.shape),
}
for key, value in expected.items():
    if isinstance(value, dict):
        same = set(value) == set(found[key]) and all(np.isclose(value[k], found[key][k], rtol=1e-6) for k in value)
    elif isinstance(value, float):
        same = np.isclose(value, found[key], rtol=1e-6)
    else:
        same = value == found[key]
    if not same:
        sys.exit(f"anndata {anndata.__version__}: {key} is {found[key]}, expected {value}")
print(f"anndata {anndata.__version__} (numpy {np.__version__}): reads it, {len(expected)} things compared")
