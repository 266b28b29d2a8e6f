"""Writes files with whatever anndata is installed: one of each encoding that it has, by every filter.

python write_files.py FOLDER     (needs anndata, no scwarp; FOLDER gets VERSION_FILTER.h5ad)
"""

import sys
import warnings

import anndata
import numpy as np
import pandas as pd
import scipy.sparse as sp

warnings.simplefilter("ignore")
N, M = 41, 29
version = anndata.__version__
release = tuple(int(x) for x in version.split(".")[:2])
r = np.random.default_rng(0)
counts = r.poisson(0.4, (N, M)).astype(np.float32)
counts[3] = 0
n = np.arange(N)


def make(x):
    a = anndata.AnnData(x, **({"dtype": x.dtype} if release < (0, 9) else {}))
    a.obs_names = [f"zelle_{i}_é" for i in n]
    a.var_names = [f"β{j}" for j in range(M)]
    for dtype in ("int8", "int32", "int64", "uint8", "uint16", "float32", "float64"):
        a.obs[dtype] = n.astype(dtype)
    a.obs["nan"] = np.where(n % 3 == 0, np.nan, n)
    a.obs["bool"] = n % 2 == 0
    a.obs["text"] = ["t{}{}".format(i, "ü" * (i % 3)) for i in n]
    a.obs["cat"] = pd.Categorical.from_codes([-1 if i == 2 else i % 3 for i in n], ["b", "a", "ç"])
    a.obs["cat ordered"] = pd.Categorical.from_codes(n % 2, ["lo", "hi"], ordered=True)
    a.obs["cat int"] = pd.Categorical(n % 4)
    if release >= (0, 8):
        a.obs["Int64"] = pd.array([None if i == 4 else i for i in n], dtype="Int64")
        a.obs["boolean"] = pd.array([None if i == 5 else bool(i % 2) for i in n], dtype="boolean")
    a.var["highly_variable"] = np.arange(M) % 2 == 0
    a.layers["csc"] = sp.csc_matrix(counts)
    a.layers["csr int"] = sp.csr_matrix(counts.astype(np.int64))
    a.layers["dense"] = counts.astype(np.float64) / 3
    a.obsm["X_pca"] = r.normal(size=(N, 5)).astype(np.float32)
    a.obsm["frame"] = pd.DataFrame({"x": n, "k": pd.Categorical(n % 2)}, index=a.obs_names)
    a.obsm["sparse"] = sp.csr_matrix(counts[:, :7])
    a.varm["PCs"] = r.normal(size=(M, 5))
    a.obsp["distances"] = sp.csr_matrix(r.random((N, N)) * (r.random((N, N)) < 0.1))
    a.varp["v"] = np.eye(M)
    a.uns = {
        "names": np.rec.fromarrays([np.array(["MS4A1", "CD79A"], "U9"), np.array(["x", "y"], "U9")], names=["0", "B"]),
        "scores": np.rec.fromarrays([np.arange(2, dtype="f4"), np.ones(2, "f4")], names=["0", "B"]),
        "nested": {"a": {"n": 1, "f": 0.5, "t": "häß", "flag": True}},
        "colors": np.array(["#ff0000", "#00ff00"], object),
        "ints": np.arange(6).reshape(2, 3),
        "sparse": sp.csr_matrix(counts[:4, :5]),
        "frame": pd.DataFrame({"a": [1, 2], "b": ["x", "y"]}, index=["r", "s"]),
    }
    a.raw = a.copy()
    return a


folder = sys.argv[1]
matrices = {"csr": sp.csr_matrix(counts), "csc": sp.csc_matrix(counts), "dense": counts, "int": counts.astype(np.int64)}
for layout, x in matrices.items():
    for name, kwargs in {
        "none": {},
        "gzip": {"compression": "gzip"},
        "gzip9": {"compression": "gzip", "compression_opts": 9},
        "lzf": {"compression": "lzf"},
    }.items():
        make(x).write_h5ad(f"{folder}/{version}_{layout}_{name}.h5ad", **kwargs)
print(f"anndata {version} (numpy {np.__version__}): wrote {4 * len(matrices)} files")
