from __future__ import annotations

import warnings

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
import scipy.sparse as sp
from conftest import dense, rank_stably, simulated_counts

import scwarp as scw


def prepared(kind: str, n: int = 500, m: int = 700, seed: int = 1) -> ad.AnnData:
    r = np.random.default_rng(seed)
    means = r.lognormal(-1, 1.5, m)
    x = r.poisson(r.gamma(2, means / 2, (n, m)) * r.lognormal(0, 0.3, (n, 1))).astype(np.float32)
    x[:, :120] = 0  # genes without counts
    x[3] = 0
    a = ad.AnnData(sp.csr_matrix(x), obs=pd.DataFrame(index=[f"c{i}" for i in range(n)]))
    a.var_names = [f"g{i}" for i in r.permutation(m)]
    a.obs["batch"] = pd.Categorical(r.choice(["x", "y", "z"], n, p=[0.5, 0.3, 0.2]))
    if kind != "counts":
        scw.pp.normalize_total(a, target_sum=1e4)
    if kind == "log":
        sc.pp.log1p(a)
    return a


def assert_same_var(a: ad.AnnData, b: ad.AnnData, rtol: float = 1e-5, atol: float = 1e-6) -> None:
    assert list(a.var) == list(b.var)
    assert a.uns["hvg"] == b.uns["hvg"]
    for c in b.var.columns[b.var.columns.get_loc("highly_variable") :]:
        assert a.var[c].dtype == b.var[c].dtype, c
        np.testing.assert_allclose(
            a.var[c].to_numpy().astype(float), b.var[c].to_numpy().astype(float), rtol=rtol, atol=atol, err_msg=c
        )


@pytest.fixture
def stable_ranks(monkeypatch):
    rank_stably(monkeypatch)


CASES = [
    ("log", {}),
    ("log", {"n_top_genes": 150}),
    ("log", {"n_bins": 7, "min_mean": 0.05, "max_mean": 5, "min_disp": 0.1, "max_disp": 4}),
    ("log", {"batch_key": "batch"}),
    ("log", {"batch_key": "batch", "n_top_genes": 150}),
    ("norm", {"flavor": "cell_ranger", "batch_key": "batch"}),
    ("norm", {"flavor": "cell_ranger", "batch_key": "batch", "n_top_genes": 100}),
    ("counts", {"flavor": "seurat_v3", "n_top_genes": 200}),
    ("counts", {"flavor": "seurat_v3", "n_top_genes": 200, "batch_key": "batch"}),
    ("counts", {"flavor": "seurat_v3_paper", "n_top_genes": 200, "batch_key": "batch", "span": 0.5}),
    ("counts", {"flavor": "seurat_v3"}),
]


@pytest.mark.parametrize(("kind", "kwargs"), CASES)
def test_equals_scanpy(kind, kwargs, stable_ranks):
    a, b = prepared(kind), prepared(kind)
    scw.pp.highly_variable_genes(a, **kwargs)
    sc.pp.highly_variable_genes(b, **kwargs)
    assert b.var["highly_variable"].sum() > 0
    assert_same_var(a, b)


@pytest.mark.parametrize("span", [0.15, 0.3, 0.75, 1.0])
@pytest.mark.parametrize("n_cells", [40, 500])  # few cells: many genes of the same mean
def test_loess_equals_scikit_misc(span, n_cells):
    a = prepared("counts")[:n_cells].copy()
    a.X = a.X.astype(np.float64)
    if (n_cells, span) == (40, 0.15):  # all genes of a local fit have one count: no quadratic is determined
        for m in (scw, sc):
            with pytest.raises(ValueError):
                m.pp.highly_variable_genes(a, flavor="seurat_v3", span=span)
        return
    ours = scw.pp.highly_variable_genes(a, flavor="seurat_v3", span=span, inplace=False)
    theirs = sc.pp.highly_variable_genes(a, flavor="seurat_v3", span=span, inplace=False)
    np.testing.assert_allclose(ours["variances_norm"], theirs["variances_norm"], rtol=1e-9)


@pytest.mark.parametrize("n_top", [None, 120])
def test_cell_ranger_equals_scanpy(n_top):
    a = prepared("norm")[:, 120:].copy()
    a = a[:, np.ravel(a.X.sum(0)) > 0].copy()
    b = a.copy()
    scw.pp.highly_variable_genes(a, flavor="cell_ranger", n_top_genes=n_top)
    sc.pp.highly_variable_genes(b, flavor="cell_ranger", n_top_genes=n_top)
    assert_same_var(a, b)


@pytest.mark.parametrize(
    ("kind", "kwargs"),
    [("log", {}), ("norm", {"flavor": "cell_ranger"}), ("counts", {"flavor": "seurat_v3", "n_top_genes": 50})],
)
def test_layouts_give_the_same_table(kind, kwargs, any_layout):
    x = prepared("counts", 200, 300)[:, 120:].X
    x = x[:, np.ravel(x.sum(0)) > 0]
    x.data = np.minimum(x.data, 40)  # expm1 of integers
    want, a = ad.AnnData(x.astype(np.float32)), ad.AnnData(any_layout(x))
    scw.pp.highly_variable_genes(want, **kwargs)
    before = dense(a.X).copy()
    scw.pp.highly_variable_genes(a, **kwargs)
    tolerance = 1e-6 if kind == "log" and a.X.dtype == np.float64 else 0  # expm1 is rounded to the type of X
    assert_same_var(a, want, rtol=tolerance, atol=tolerance)
    np.testing.assert_array_equal(dense(a.X), before)


def test_log_base(stable_ranks):
    a = prepared("norm")
    sc.pp.log1p(a, base=2)
    b = a.copy()
    scw.pp.highly_variable_genes(a, n_top_genes=100)
    sc.pp.highly_variable_genes(b, n_top_genes=100)
    assert_same_var(a, b)


@pytest.mark.parametrize(("kind", "flavor"), [("log", "seurat"), ("counts", "seurat_v3"), ("norm", "cell_ranger")])
@pytest.mark.parametrize("batch_key", [None, "batch"])
def test_inplace_false_and_subset(kind, flavor, batch_key, stable_ranks):
    if flavor == "cell_ranger" and batch_key is None:
        pytest.skip("bins coincide with genes without counts")
    a, kwargs = prepared(kind), {"flavor": flavor, "n_top_genes": 90, "batch_key": batch_key}
    columns = list(a.var)
    full = scw.pp.highly_variable_genes(a, inplace=False, **kwargs)
    part = scw.pp.highly_variable_genes(a, inplace=False, subset=True, **kwargs)
    assert list(a.var) == columns
    assert "hvg" not in a.uns
    assert full["highly_variable"].sum() == 90
    pd.testing.assert_frame_equal(full[full["highly_variable"]], part)
    theirs = sc.pp.highly_variable_genes(a, inplace=False, **kwargs)
    shared = [c for c in full if c != "highly_variable"]
    pd.testing.assert_frame_equal(
        full[shared], theirs[shared], rtol=1e-5, atol=1e-6, check_dtype=True, check_names=False
    )
    scw.pp.highly_variable_genes(a, subset=True, **kwargs)
    assert list(a.var_names) == list(part.index)


def test_filter_unexpressed_genes():
    a = prepared("norm")
    table = scw.pp.highly_variable_genes(a, flavor="cell_ranger", filter_unexpressed_genes=True, inplace=False)
    kept = np.ravel(a.X.sum(0)) > 0
    want = sc.pp.highly_variable_genes(a[:, kept].copy(), flavor="cell_ranger", inplace=False)
    assert (~kept).sum() >= 120
    for c in ("means", "dispersions", "dispersions_norm"):
        np.testing.assert_allclose(table[c].to_numpy()[kept], want[c], rtol=1e-5, atol=1e-6)
        assert not table[c].to_numpy()[~kept].any()


@pytest.mark.parametrize("flavor", ["seurat", "cell_ranger"])
def test_batches_of_text_become_categorical(counts, flavor):
    sc.pp.log1p(counts)
    counts.obs["batch"] = np.array(["b10", "b9", None], dtype=object)[np.arange(counts.n_obs) % 3]
    counts.obs["number"] = np.arange(counts.n_obs) % 2
    a, b = counts.copy(), counts[counts.obs["batch"].notna()].copy()
    frame = scw.pp.highly_variable_genes(a, batch_key="batch", flavor=flavor, inplace=False)
    assert a.obs["batch"].dtype == object
    scw.pp.highly_variable_genes(a, batch_key="batch", flavor=flavor)
    sc.pp.highly_variable_genes(b, batch_key="batch", flavor=flavor)
    assert a.obs["batch"].dtype == b.obs["batch"].dtype
    assert list(a.obs["batch"].cat.categories) == ["b9", "b10"]
    assert a.obs["batch"].isna().sum() == 133
    pd.testing.assert_series_equal(a.var["means"], frame["means"])
    scw.pp.highly_variable_genes(a, batch_key="number", flavor=flavor)
    assert a.obs["number"].dtype == np.int64
    view = counts[:200]
    scw.pp.highly_variable_genes(view, batch_key="batch", flavor=flavor)
    assert view.obs["batch"].dtype == "category" and counts.obs["batch"].dtype == object


def test_layer_and_view():
    a = prepared("log")
    a.layers["l"] = a.X.copy()
    a.X = sp.csr_matrix(a.shape, dtype=np.float32)
    v = a[:300]
    want = a[:300].copy()
    sc.pp.highly_variable_genes(want, layer="l")
    scw.pp.highly_variable_genes(v, layer="l")
    assert_same_var(v, want)
    assert "highly_variable" not in a.var


def test_same_bits_for_any_number_of_threads():
    for kind, flavor in (("log", "seurat"), ("norm", "cell_ranger"), ("counts", "seurat_v3")):
        a = prepared(kind)
        tables = []
        for threads in (1, 2, 3, 2, 1):
            with scw.settings.override(n_threads=threads):
                tables.append(scw.pp.highly_variable_genes(a, flavor=flavor, batch_key="batch", inplace=False))
        for t in tables[1:]:
            pd.testing.assert_frame_equal(t, tables[0], check_exact=True)


def test_order_of_cells_does_not_matter():
    for kind, f in (("log", "seurat"), ("counts", "seurat_v3")):
        a = prepared(kind)
        b = a[np.random.default_rng(0).permutation(a.n_obs)].copy()
        pd.testing.assert_frame_equal(
            scw.pp.highly_variable_genes(a, flavor=f, inplace=False),
            scw.pp.highly_variable_genes(b, flavor=f, inplace=False),
            check_exact=True,
        )


def test_warnings():
    with pytest.warns(UserWarning, match="all cutoffs are ignored"):
        scw.pp.highly_variable_genes(prepared("log"), n_top_genes=10, min_mean=0.1)
    with pytest.warns(UserWarning, match="expects raw count data, but non-integers were found"):
        scw.pp.highly_variable_genes(prepared("log"), flavor="seurat_v3")
    with pytest.warns(UserWarning, match="returning all genes with normalized dispersions"):
        scw.pp.highly_variable_genes(prepared("log"), n_top_genes=640)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scw.pp.highly_variable_genes(prepared("counts"), flavor="seurat_v3")
        scw.pp.highly_variable_genes(prepared("log"), flavor="seurat_v3", check_values=False)
        scw.pp.highly_variable_genes(prepared("log"), n_top_genes=10)


def test_errors_leave_the_object():
    a = prepared("norm")
    columns = list(a.var)
    with pytest.raises(ValueError, match="unknown flavor 'x'"):
        scw.pp.highly_variable_genes(a, flavor="x")
    with pytest.raises(KeyError, match="batch_key='x'"):
        scw.pp.highly_variable_genes(a, batch_key="x")
    with pytest.raises(ValueError, match="Bin edges must be unique"):
        scw.pp.highly_variable_genes(a, flavor="cell_ranger")
    with pytest.raises(ValueError, match="n_top_genes must be positive"):
        scw.pp.highly_variable_genes(a, n_top_genes=0)
    with pytest.raises(ValueError, match="span must be in"):
        scw.pp.highly_variable_genes(a, flavor="seurat_v3", span=1.5)
    with pytest.raises(ValueError, match="expected an AnnData"):
        scw.pp.highly_variable_genes(a.X)
    with pytest.raises(TypeError, match="n_bins must be an integer"):
        scw.pp.highly_variable_genes(a, n_bins=20.0)
    with pytest.raises(ValueError, match="loess"):
        scw.pp.highly_variable_genes(a[:, 120:124].copy(), flavor="seurat_v3")
    x = a.X.copy()
    x.data[5] = np.nan
    with pytest.raises(scw.DataError, match="not a finite number"):
        scw.pp.highly_variable_genes(ad.AnnData(x))
    with pytest.raises(scw.DataError, match="not finite"):
        scw.pp.highly_variable_genes(ad.AnnData(x), flavor="seurat_v3")
    assert list(a.var) == columns
    assert "hvg" not in a.uns


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("n", [1, 2])
def test_few_cells(n):
    x = np.random.default_rng(0).poisson(3, (n, 60)).astype(np.float32)
    a = ad.AnnData(x.copy())
    scw.pp.highly_variable_genes(a, n_top_genes=5)
    assert (a.var["highly_variable"].sum() >= 5) == (n == 2)  # one cell: no variance is defined
    exact = np.log(np.var(np.expm1(x.astype(float)), 0, ddof=n - 1) / np.expm1(x.astype(float)).mean(0))
    exact[~np.isfinite(exact)] = np.nan  # scanpy has the logarithm of a rounding error where the variance is 0
    np.testing.assert_allclose(a.var["dispersions"], exact, rtol=1e-5)


def test_no_cells():
    with pytest.raises(ValueError, match="needs cells and genes"):
        scw.pp.highly_variable_genes(ad.AnnData(np.ones((0, 4), np.float32)))


def test_ties_between_batches_go_by_name():
    x = np.tile(simulated_counts(200, 100, seed=4).toarray(), (1, 2))  # every gene twice
    names = [f"n{i}" for i in np.random.default_rng(1).permutation(200)]
    a = ad.AnnData(sp.csr_matrix(x), obs=pd.DataFrame({"b": pd.Categorical(["p", "q"] * 100)}))
    a.obs_names, a.var_names = [f"c{i}" for i in range(200)], names
    b = a.copy()
    scw.pp.highly_variable_genes(a, n_top_genes=51, batch_key="b")
    sc.pp.highly_variable_genes(b, n_top_genes=51, batch_key="b")
    assert_same_var(a, b)


@pytest.mark.parametrize("layout", [lambda x: x, dense])
@pytest.mark.parametrize(
    "kwargs", [{}, {"clip": 3, "theta": 10}, {"batch_key": "batch", "clip": 12}, {"theta": np.inf, "n_top_genes": 700}]
)
def test_pearson_residuals_equal_scanpy(kwargs, layout, stable_ranks):
    a = prepared("counts")[4:].copy()  # without the empty cell
    a.X = layout(a.X)
    b = a.copy()
    kwargs = {"flavor": "pearson_residuals", "n_top_genes": 150, **kwargs}
    scw.pp.highly_variable_genes(a, **kwargs)
    sc.experimental.pp.highly_variable_genes(b, **kwargs)
    assert list(a.var) == list(b.var)
    assert a.uns["hvg"] == b.uns["hvg"]
    for c in b.var:
        assert a.var[c].dtype == b.var[c].dtype, c
        np.testing.assert_allclose(a.var[c].astype(float), b.var[c].astype(float), rtol=1e-5, atol=1e-6, err_msg=c)


def test_pearson_residuals_clip_each_batch():
    a = prepared("counts")
    both = scw.pp.highly_variable_genes(a, flavor="pearson_residuals", batch_key="batch", n_top_genes=50, inplace=False)
    single = [
        scw.pp.highly_variable_genes(
            a[a.obs["batch"] == b].copy(), flavor="pearson_residuals", n_top_genes=50, inplace=False
        )
        for b in "xyz"
    ]
    np.testing.assert_allclose(
        both["residual_variances"], np.mean([t["residual_variances"] for t in single], axis=0), rtol=1e-12
    )


def test_pearson_residuals_bits_warning_and_errors():
    a = prepared("counts")
    tables = []
    for threads in (1, 2, 3):
        with scw.settings.override(n_threads=threads), pytest.warns(UserWarning, match="2000"):
            tables.append(scw.pp.highly_variable_genes(a, flavor="pearson_residuals", inplace=False))
    for t in tables[1:]:
        pd.testing.assert_frame_equal(t, tables[0], check_exact=True)
    with pytest.raises(ValueError, match="theta must be positive"):
        scw.pp.highly_variable_genes(a, flavor="pearson_residuals", n_top_genes=5, theta=0)
    with pytest.raises(ValueError, match="clip must not be negative"):
        scw.pp.highly_variable_genes(a, flavor="pearson_residuals", n_top_genes=5, clip=-1)


def test_plot(monkeypatch):
    import matplotlib

    matplotlib.use("Agg")
    for kind, flavor in (("log", "seurat"), ("counts", "seurat_v3")):
        a = prepared(kind)
        scw.pp.highly_variable_genes(a, flavor=flavor, n_top_genes=50)
        sc.pl.highly_variable_genes(a, show=False)


# Published tables -----------------------------------------------------------------------------------------------------


def _pbmc68k(shared_data):
    a = ad.read_h5ad(shared_data / "pbmc68k_reduced" / "pbmc68k_reduced.h5ad")
    x = ad.AnnData(a.raw.X, var=a.raw.var[[]].copy(), obs=a.obs[[]].copy())
    x.var_names_make_unique()
    sc.pp.normalize_total(x, target_sum=1e4)
    return x


def test_seurat_table(shared_data):
    want = pd.read_csv(shared_data / "reference_tables/scanpy/tests/_scripts/seurat_hvg.csv", index_col=0)
    a = _pbmc68k(shared_data)
    scw.pp.log1p(a)
    scw.pp.highly_variable_genes(a, flavor="seurat", min_mean=0.0125, max_mean=3, min_disp=0.5)
    assert list(a.var_names) == list(want.index)
    np.testing.assert_array_equal(a.var["highly_variable"], want["highly_variable"])
    for c in ("means", "dispersions", "dispersions_norm"):
        np.testing.assert_allclose(a.var[c], want[c], rtol=2e-5, atol=2e-5, err_msg=c)


def test_cell_ranger_table(shared_data):
    want = pd.read_csv(shared_data / "reference_tables/scanpy/tests/_scripts/cell_ranger_hvg.csv", index_col=0)
    a = _pbmc68k(shared_data)
    scw.pp.log1p(a)
    scw.pp.highly_variable_genes(a, flavor="cell_ranger", n_top_genes=int(want["highly_variable"].sum()))
    for c in ("means", "dispersions", "dispersions_norm"):
        np.testing.assert_allclose(a.var[c], want[c], rtol=2e-5, atol=2e-5, err_msg=c)


def _pbmc3k(shared_data):
    a = ad.read_h5ad(shared_data / "pbmc3k" / "pbmc3k_raw.h5ad")
    sc.pp.filter_cells(a, min_genes=200)
    sc.pp.filter_genes(a, min_cells=3)
    return a


def test_seurat_v3_table(shared_data):
    want = pd.read_csv(shared_data / "reference_tables/scanpy/tests/_scripts/seurat_hvg_v3.csv.gz", index_col=0)
    a = _pbmc3k(shared_data)
    assert a.shape == (2700, len(want))
    scw.pp.highly_variable_genes(a, flavor="seurat_v3", n_top_genes=1000)
    np.testing.assert_allclose(a.var["means"], want["mean"], rtol=1e-12)
    np.testing.assert_allclose(a.var["variances"], want["variance"], rtol=1e-12)
    # Seurat's own loess of R: the same algorithm.
    np.testing.assert_allclose(a.var["variances_norm"], want["variance.standardized"], rtol=1e-9)


def test_seurat_v3_batch_table(shared_data):
    want = pd.read_csv(shared_data / "reference_tables/scanpy/tests/_scripts/seurat_hvg_v3_batch.csv")["x"].to_numpy()
    a = _pbmc3k(shared_data)
    a.obs["batch"] = pd.Categorical(np.minimum(np.arange(a.n_obs) // 500, 4).astype(str))
    scw.pp.highly_variable_genes(a, flavor="seurat_v3_paper", n_top_genes=2000, batch_key="batch")
    ours = a.var["highly_variable"]
    assert len(set(a.var_names[ours]) & set(want)) / len(want) > 0.98  # ties at the ends of the ranks


@pytest.mark.parametrize("kwargs", [{}, {"n_top_genes": 2000}, {"n_top_genes": 2000, "batch_key": "b"}])
@pytest.mark.parametrize("flavor", ["seurat", "cell_ranger", "seurat_v3", "seurat_v3_paper"])
def test_pbmc3k_equals_scanpy(shared_data, flavor, kwargs, stable_ranks):
    a = _pbmc3k(shared_data)
    a.obs["b"] = pd.Categorical(np.random.default_rng(0).choice(["p", "q"], a.n_obs))
    if not flavor.startswith("seurat_v3"):
        sc.pp.normalize_total(a, target_sum=1e4)
    if flavor == "seurat":
        sc.pp.log1p(a)
    b = a.copy()
    scw.pp.highly_variable_genes(a, flavor=flavor, **kwargs)
    sc.pp.highly_variable_genes(b, flavor=flavor, **kwargs)
    assert_same_var(a, b)


def poisson_reference(x: np.ndarray, batches: np.ndarray, n_top: int) -> pd.DataFrame:
    tables = []
    for b in np.unique(batches):
        part = x[batches == b].astype(np.float64)
        share = part.sum(0) / max(part.sum(), 1)
        observed = 1 - (part > 0).sum(0) / len(part)
        expected = np.exp(-np.outer(part.sum(1), share)).mean(0)
        prob = observed * (1 - expected)
        rank = np.empty(x.shape[1])
        rank[np.argsort(np.round(prob, 11), kind="stable")] = np.arange(x.shape[1])
        tables.append(np.stack([observed, expected, rank >= x.shape[1] - n_top, prob, rank]))
    t = np.stack(tables)
    columns = {
        "observed_fraction_zeros": np.median(t[:, 0], 0),
        "expected_fraction_zeros": np.median(t[:, 1], 0),
        "prob_zero_enriched_nbatches": t[:, 2].sum(0).astype(np.int64),
        "prob_zero_enrichment": np.median(t[:, 3], 0),
        "prob_zero_enrichment_rank": np.median(t[:, 4], 0),
    }
    order = np.lexsort((-columns["prob_zero_enrichment_rank"], -columns["prob_zero_enriched_nbatches"]))
    selected = np.zeros(x.shape[1], bool)
    selected[order[:n_top]] = True
    return pd.DataFrame({**columns, "highly_variable": selected})


@pytest.mark.parametrize("batch_key", [None, "batch"])
@pytest.mark.parametrize("n", [1, 3, 500])
def test_poisson_gene_selection_equals_numpy(batch_key, n):
    a = prepared("counts")[:n].copy()
    batches = a.obs["batch"].to_numpy() if batch_key else np.zeros(n)
    want = poisson_reference(a.X.toarray(), batches, 150)
    frame = scw.pp.highly_variable_genes(
        a, flavor="poisson_gene_selection", n_top_genes=150, batch_key=batch_key, inplace=False
    )
    assert list(a.var) == [] and list(frame) == list(want)
    assert (frame.dtypes == want.dtypes.to_numpy()).all()
    pd.testing.assert_frame_equal(frame.reset_index(drop=True), want, rtol=1e-11, atol=1e-12)
    assert n == 1 or frame["prob_zero_enrichment"].max() > 0.1
    scw.pp.highly_variable_genes(
        a, flavor="poisson_gene_selection", n_top_genes=150, batch_key=batch_key, subset=True, n_samples=5, chunksize=7
    )
    pd.testing.assert_frame_equal(a.var, frame.loc[frame["highly_variable"]])
    assert a.uns["hvg"] == {"flavor": "poisson_zeros"}


def test_poisson_gene_selection_layouts(any_layout):
    x = prepared("counts", 200, 300).X
    want, a = ad.AnnData(x), ad.AnnData(any_layout(x))
    for b in (want, a):
        scw.pp.highly_variable_genes(b, flavor="poisson_gene_selection", n_top_genes=50)
    pd.testing.assert_frame_equal(a.var, want.var, check_exact=True)


def test_poisson_gene_selection_warnings():
    a = prepared("norm", 50, 150)
    with pytest.warns(UserWarning) as caught:
        scw.pp.highly_variable_genes(a, flavor="poisson_gene_selection")
    messages = " ".join(str(w.message) for w in caught)
    assert "2000" in messages and "non-integers" in messages
    assert a.var["highly_variable"].all()  # fewer than 2000 genes
    empty = ad.AnnData(sp.csr_matrix((4, 3), dtype=np.float32))
    scw.pp.highly_variable_genes(empty, flavor="poisson_gene_selection", n_top_genes=1)
    assert (empty.var["expected_fraction_zeros"] == 1).all() and (empty.var["prob_zero_enrichment"] == 0).all()
