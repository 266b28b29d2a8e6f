from __future__ import annotations

import anndata as ad
import numpy as np
import pytest
import scanpy as sc
import scipy.sparse as sp
from conftest import dense

import scwarp as scw

CELLS = [("min_counts", 60), ("max_counts", 200), ("min_genes", 30), ("max_genes", 80)]
GENES = [("min_counts", 60), ("max_counts", 500), ("min_cells", 30), ("max_cells", 150)]


@pytest.mark.parametrize(
    ("function", "name", "value"), [("filter_cells", *c) for c in CELLS] + [("filter_genes", *g) for g in GENES]
)
def test_equals_scanpy(counts, any_layout, function, name, value):
    a = ad.AnnData(any_layout(counts.X), obs=counts.obs, var=counts.var)
    a.layers["l"] = a.X.copy()
    a.obsm["o"] = np.arange(a.n_obs * 2.0).reshape(-1, 2)
    a.varm["v"] = np.arange(a.n_vars * 2.0).reshape(-1, 2)
    a.uns["u"] = {"k": 1}
    a.raw = a
    a.obsp["p"] = counts.X[:, : a.n_vars] @ counts.X.T
    b = a.copy()
    ours = getattr(scw.pp, function)(a, inplace=False, **{name: value})
    theirs = getattr(sc.pp, function)(b, inplace=False, **{name: value})
    np.testing.assert_array_equal(ours[0], theirs[0])
    np.testing.assert_array_equal(ours[1], theirs[1])
    assert 0 < ours[0].sum() < len(ours[0])
    getattr(scw.pp, function)(a, **{name: value})
    getattr(sc.pp, function)(b, **{name: value})
    assert a.shape == b.shape
    assert a.X.dtype == b.X.dtype
    assert type(a.X) is type(b.X)
    np.testing.assert_array_equal(dense(a.X), dense(b.X))
    np.testing.assert_array_equal(dense(a.layers["l"]), dense(b.layers["l"]))
    np.testing.assert_array_equal(a.obsm["o"], b.obsm["o"])
    np.testing.assert_array_equal(a.varm["v"], b.varm["v"])
    np.testing.assert_array_equal(dense(a.obsp["p"]), dense(b.obsp["p"]))
    np.testing.assert_array_equal(dense(a.raw.X), dense(b.raw.X))
    assert list(a.raw.var_names) == list(b.raw.var_names)
    assert a.uns == b.uns
    assert a.obs.equals(b.obs) and a.var.equals(b.var)


def test_matrix_gives_the_tuple(counts):
    keep, number = scw.pp.filter_genes(counts.X, min_cells=10)
    np.testing.assert_array_equal(number, (dense(counts.X) > 0).sum(0))
    np.testing.assert_array_equal(keep, number >= 10)


def test_negatives_are_not_expressed():
    x = np.array([[-1.0, 2.0], [0.0, 3.0]], np.float32)
    np.testing.assert_array_equal(scw.pp.filter_genes(x, min_cells=1)[1], [0, 2])
    np.testing.assert_array_equal(scw.pp.filter_cells(x, min_genes=1)[1], [1, 1])


def test_view_and_copy(counts):
    view = counts[10:200]
    scw.pp.filter_cells(view, min_genes=30)
    assert not view.is_view and counts.n_obs == 400
    filtered = scw.pp.filter_genes(counts, min_cells=5, copy=True)
    assert filtered.n_vars < counts.n_vars and "n_cells" not in counts.var


@pytest.mark.parametrize("kwargs", [{}, {"min_genes": 1, "min_counts": 1}])
def test_exactly_one_threshold(counts, kwargs):
    with pytest.raises(ValueError, match="exactly one of"):
        scw.pp.filter_cells(counts, **kwargs)


@pytest.mark.parametrize("call", [
    lambda a: scw.pp.filter_cells(a, min_genes=30),
    lambda a: scw.pp.filter_genes(a, min_cells=3),
    lambda a: scw.pp.filter_cells(a, min_genes=30, copy=True),
    lambda a: scw.pp.filter_highly_variable(a),
    lambda a: scw.pp.highly_variable_genes(a, n_top_genes=20, flavor="cell_ranger", subset=True),
    lambda a: scw.pp.subset(a, genes="highly_variable"),
    lambda a: scw.pp.subset(a, genes="highly_variable", copy=True),
])  # fmt: skip
@pytest.mark.parametrize("layout", [dense, lambda x: x])
def test_backed_by_anndata_is_refused_before_anything_is_written(counts, tmp_path, call, layout):
    counts.X = layout(counts.X)
    counts.var["highly_variable"] = np.arange(counts.n_vars) % 2 == 0
    counts.write_h5ad(tmp_path / "a.h5ad")
    a = ad.read_h5ad(tmp_path / "a.h5ad", backed="r")
    with pytest.raises(TypeError, match=r"to_memory\(\).*scwarp.read_h5ad"):
        call(a)
    assert list(a.var) == ["highly_variable"] and not list(a.obs) and not a.uns
    keep, number = scw.pp.filter_cells(a, min_genes=30, inplace=False)
    np.testing.assert_array_equal(number, np.diff(sp.csr_matrix(counts.X).indptr))
    assert keep.sum() < a.n_obs
    a.file.close()


def test_nothing_left(counts):
    scw.pp.filter_cells(counts, min_genes=10**6)
    assert counts.n_obs == 0


def test_gene_families(counts):
    scw.pp.flag_gene_family(counts, gene_family_name="g1", gene_family_prefix="gene1")
    scw.pp.flag_gene_family(counts, gene_family_name="two", gene_list=["gene3", "gene7", "absent"])
    np.testing.assert_array_equal(counts.var["g1"], counts.var_names.str.startswith("gene1"))
    assert list(counts.var_names[counts.var["two"]]) == ["gene3", "gene7"]
    counts.var["highly_variable"] = counts.var["two"]
    scw.pp.filter_highly_variable(counts)
    assert list(counts.var_names) == ["gene3", "gene7"]
    with pytest.raises(ValueError, match="give gene_family_prefix"):
        scw.pp.flag_gene_family(counts, gene_family_name="x")
