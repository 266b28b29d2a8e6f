"""Matrices in a file through the GPU: the slots and the bits of the CPU in memory, for any cutting into blocks."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from conftest import simulated_counts

import scwarp as scw

if scw._core.unavailable_reason("cuda"):
    pytest.skip("no CUDA device: " + scw._core.unavailable_reason("cuda"), allow_module_level=True)


def plain(x) -> np.ndarray:
    return x.toarray() if sp.issparse(x) else np.asarray(x)


def main_job(d: ad.AnnData, device: str) -> None:
    scw.pp.calculate_qc_metrics(d, qc_vars=["mt"], percent_top=[10, 50], inplace=True, device=device)
    scw.pp.filter_cells(d, min_genes=int(np.median(d.obs["n_genes_by_counts"])) - 20, device=device)
    scw.pp.filter_genes(d, min_cells=5, device=device)
    scw.pp.normalize_total(d, exclude_highly_expressed=True, key_added="factor", device=device)
    scw.pp.log1p(d, device=device)
    scw.pp.highly_variable_genes(d, n_top_genes=100, device=device)
    d.obs["score"] = scw.tl.score_genes(d, list(d.var_names[3:9]), copy=True, device=device).obs["score"]
    scw.tl.rank_genes_groups(d, "group", method="t-test", pts=True, device=device)


@pytest.mark.parametrize("block", [None, "3KiB", "50KiB"])
@pytest.mark.parametrize("layout", ["csr", "dense"])
@pytest.mark.parametrize("dtype", ["float32", "int64"])
def test_main_job(tmp_path, dtype, layout, block):
    x = simulated_counts(900, 300, seed=5).tocsr().astype(dtype)
    a = ad.AnnData(x.toarray() if layout == "dense" else x)
    a.var["mt"] = np.arange(a.n_vars) < 13
    a.obs["group"] = pd.Categorical(np.array(["a", "b", "c"])[np.arange(a.n_obs) % 3])
    a.write_h5ad(tmp_path / "a.h5ad")
    main_job(a, "cpu")
    b = scw.read_h5ad(tmp_path / "a.h5ad", backed="r")
    with scw.settings.override(block_bytes=block):
        main_job(b, "cuda")
        assert "on disk" in repr(b.X) and b.n_obs < 900
        pd.testing.assert_frame_equal(b.obs, a.obs)
        pd.testing.assert_frame_equal(b.var, a.var)
        np.testing.assert_array_equal(plain(b.X[:]), plain(a.X))
        for key in ("scores", "names", "pvals"):
            for g in "abc":
                np.testing.assert_array_equal(b.uns["rank_genes_groups"][key][g], a.uns["rank_genes_groups"][key][g])
        loaded = b.to_memory()
        scw.pp.pca(loaded, n_comps=10, device="cuda")
        scw.pp.pca(b, n_comps=10, device="cuda")
        np.testing.assert_array_equal(b.obsm["X_pca"], loaded.obsm["X_pca"])
        scw.pp.pca(a, n_comps=10, device="cpu")
        np.testing.assert_allclose(b.obsm["X_pca"], a.obsm["X_pca"], atol=1e-4 * np.abs(a.obsm["X_pca"]).max())
