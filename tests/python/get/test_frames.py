from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
import scipy.sparse as sp
from conftest import simulated_counts

import scwarp as scw


@pytest.fixture
def data() -> ad.AnnData:
    a = ad.AnnData(simulated_counts(200, 60, seed=2))
    a.obs_names = [f"cell{i}" for i in range(a.n_obs)]
    a.var_names = [f"gene{i}" for i in range(a.n_vars)]
    sc.pp.log1p(a)
    a.obs["group"] = pd.Categorical.from_codes(np.random.default_rng(1).integers(0, 3, 200), list("cab"))
    a.obs["size"] = np.arange(200.0)
    a.var["symbol"] = [f"S{i // 2}" if i > 50 else f"sym{i}" for i in range(60)]
    a.layers["twice"] = a.X * 2
    a.obsm["pca"] = np.random.default_rng(0).normal(size=(200, 3))
    a.obsm["sparse"] = sp.csr_matrix(a.obsm["pca"])
    a.obsm["frame"] = pd.DataFrame(a.obsm["pca"], index=a.obs_names, columns=[0, 1, 2])
    a.varm["PCs"] = np.random.default_rng(0).normal(size=(60, 3))
    a.raw = a
    return a


@pytest.mark.parametrize("kwargs", [
    {"group": "a"},
    {"group": None},
    {"group": ["b", "c"]},
    {"group": None, "pval_cutoff": 0.9},
    {"group": "b", "log2fc_min": -0.1, "log2fc_max": 0.3},
    {"group": None, "gene_symbols": "symbol"},
])  # fmt: skip
@pytest.mark.parametrize("pts", [False, True])
def test_rank_genes_groups_df(data, kwargs, pts):
    scw.tl.rank_genes_groups(data, "group", pts=pts, key_added="markers")
    a = scw.get.rank_genes_groups_df(data, key="markers", **kwargs)
    b = sc.get.rank_genes_groups_df(data, key="markers", **kwargs)
    if "group" in b:
        assert a["group"].dtype == "category"
        b["group"] = b["group"].astype(a["group"].dtype)  # scanpy loses the type when there are fractions
    pd.testing.assert_frame_equal(a, b)
    assert len(a) > 3


@pytest.mark.parametrize("pts", [False, True])
@pytest.mark.parametrize("kwargs", [{"group": "a"}, {"group": None, "gene_symbols": "symbol"}])
def test_rank_genes_groups_df_of_a_filtered_result(data, pts, kwargs):
    sc.tl.rank_genes_groups(data, "group", method="wilcoxon", pts=pts)
    sc.tl.filter_rank_genes_groups(data, min_in_group_fraction=0.3, min_fold_change=0.05)
    a = scw.get.rank_genes_groups_df(data, key="rank_genes_groups_filtered", **kwargs)
    b = sc.get.rank_genes_groups_df(data, key="rank_genes_groups_filtered", **kwargs)
    if "group" in b:
        b["group"] = b["group"].astype(a["group"].dtype)
    pd.testing.assert_frame_equal(a, b)
    assert 0 < a["names"].notna().sum() < 60 * (1 if kwargs["group"] else 3)
    assert a["names"].notna().all() == pts


def test_rank_genes_groups_df_errors(data):
    with pytest.raises(KeyError, match="run tl"):
        scw.get.rank_genes_groups_df(data, "a")
    scw.tl.rank_genes_groups(data, "group")
    with pytest.raises(KeyError, match="no group"):
        scw.get.rank_genes_groups_df(data, "z")
    data.var_names = ["gene0", "gene0", *data.var_names[2:]]
    scw.tl.rank_genes_groups(data, "group", use_raw=False)
    assert len(scw.get.rank_genes_groups_df(data, "a")) == 60
    with pytest.raises(ValueError, match=r"not unique .*'gene0'.*gene_symbols.*var_names_make_unique"):
        scw.get.rank_genes_groups_df(data, "a", gene_symbols="symbol")
    scw.tl.rank_genes_groups(data, "group", use_raw=False, pts=True)
    with pytest.raises(ValueError, match=r"pts cannot be looked up.*var_names_make_unique"):
        scw.get.rank_genes_groups_df(data, "a")


@pytest.mark.parametrize("kwargs", [
    {"keys": ["gene5", "size", "gene3", "group"]},
    {"keys": "gene7", "layer": "twice"},
    {"keys": ["gene7", "gene7", "size"]},
    {"keys": ["sym4", "size"], "gene_symbols": "symbol"},
    {"keys": ["gene7"], "use_raw": True},
    {"keys": ["gene7"], "obsm_keys": [("pca", 1), ("sparse", 0), ("frame", 2)]},
    {"obsm_keys": [("pca", 0)]},
    {},
])  # fmt: skip
def test_obs_df(data, kwargs):
    data.X = data.X * 3
    pd.testing.assert_frame_equal(scw.get.obs_df(data, **kwargs), sc.get.obs_df(data, **kwargs))


@pytest.mark.parametrize("kwargs", [
    {"keys": ["cell5", "symbol", "cell3"]},
    {"keys": "cell7", "layer": "twice"},
    {"keys": ["symbol"], "varm_keys": [("PCs", 1)]},
])  # fmt: skip
def test_var_df(data, kwargs):
    pd.testing.assert_frame_equal(scw.get.var_df(data, **kwargs), sc.get.var_df(data, **kwargs))


def test_errors(data):
    with pytest.raises(KeyError, match="could not find"):
        scw.get.obs_df(data, ["gene1", "nothing"])
    with pytest.raises(KeyError, match="2 entries"):
        scw.get.obs_df(data, ["S26"], gene_symbols="symbol")
    data.obs["gene1"] = 1
    with pytest.raises(KeyError, match="both"):
        scw.get.obs_df(data, ["gene1"])
    data.var_names = ["g"] * 60
    with pytest.raises(ValueError, match="repeated names"):
        scw.get.obs_df(data, ["size"])
    data.obs = pd.concat([data.obs, data.obs[["size"]]], axis=1)
    with pytest.raises(ValueError, match="repeated columns"):
        scw.get.obs_df(data, ["group"])


@pytest.mark.parametrize("layout", [np.asarray, sp.csr_matrix])
@pytest.mark.parametrize(
    "read", [lambda path: ad.read_h5ad(path, backed="r"), lambda path: scw.read_h5ad(path, backed="r")]
)
def test_keys_of_a_backed_matrix_in_any_order(data, tmp_path, layout, read):
    a = ad.AnnData(layout(data.X.toarray()), obs=data.obs[["size"]], var=data.var)
    a.write_h5ad(tmp_path / "a.h5ad")
    b = read(tmp_path / "a.h5ad")
    keys = ["gene5", "size", "gene1", "gene40", "gene5"]
    pd.testing.assert_frame_equal(scw.get.obs_df(b, keys), scw.get.obs_df(a, keys))
    keys = ["cell5", "symbol", "cell1", "cell5"]
    pd.testing.assert_frame_equal(scw.get.var_df(b, keys), scw.get.var_df(a, keys), check_categorical=False)
