from __future__ import annotations

import warnings

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
import scipy.sparse as sp
import scipy.stats
from conftest import dense, simulated_counts

import scwarp as scw

METHODS = ("t-test", "t-test_overestim_var", "wilcoxon")
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")


@pytest.fixture
def data() -> ad.AnnData:
    x = simulated_counts(600, 150, seed=4)
    a = ad.AnnData(x)
    a.obs_names = [f"cell{i}" for i in range(a.n_obs)]
    a.var_names = [f"gene{i}" for i in range(a.n_vars)]
    a.obs["group"] = pd.Categorical.from_codes(np.random.default_rng(1).integers(0, 5, 600), list("edcba"))
    a.X[(a.obs["group"] == "c").to_numpy(), :] *= 2
    sc.pp.normalize_total(a, target_sum=1e4)
    sc.pp.log1p(a)
    a.obs.loc[a.obs_names[:7], "group"] = np.nan
    return a


def by_name(a: ad.AnnData, group: str, key: str = "rank_genes_groups") -> pd.DataFrame:
    r = a.uns[key]
    columns = [k for k in ("names", "scores", "logfoldchanges", "pvals", "pvals_adj") if k in r]
    return pd.DataFrame({k: r[k][group] for k in columns}).set_index("names")


def call(module, a, *args, **kwargs):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module.tl.rank_genes_groups(a, *args, **kwargs)


def assert_same(a: ad.AnnData, b: ad.AnnData, rtol: float = 1e-6) -> None:
    x, y = a.uns["rank_genes_groups"], b.uns["rank_genes_groups"]
    assert set(y) <= set(x)
    assert y["params"].items() <= x["params"].items()
    for key in y:
        if key in ("params", "pts", "pts_rest"):
            continue
        assert type(x[key]) is type(y[key])
        assert x[key].dtype == y[key].dtype
        assert x[key].shape == y[key].shape
    for g in y["names"].dtype.names:
        p, q = by_name(a, g), by_name(b, g)
        pd.testing.assert_frame_equal(p, q.loc[p.index], rtol=rtol, atol=1e-9)
    for key in ("pts", "pts_rest"):
        assert (key in x) == (key in y)
        if key in y:
            pd.testing.assert_frame_equal(x[key], y[key], check_names=False)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("reference", ["rest", "d"])
@pytest.mark.parametrize("tie_correct", [False, True])
def test_equals_scanpy(data, method, reference, tie_correct):
    if tie_correct and method != "wilcoxon":
        pytest.skip("ties are for Wilcoxon")
    a, b = data, data.copy()
    for groups in ("all", ["b", "e"]):
        for m, x in ((scw, a), (sc, b)):
            call(m, x, "group", method=method, reference=reference, tie_correct=tie_correct, groups=groups, pts=True)
        assert_same(a, b)
        assert a.uns["rank_genes_groups"]["names"].dtype.names == tuple(
            g for g in ("edcba" if groups == "all" else "be") if g != reference
        )


@pytest.mark.parametrize("kwargs", [
    {"layer": "counts"},
    {"use_raw": False},
    {},
    {"use_raw": False, "mask_var": "tested"},
    {"rankby_abs": True},
    {"corr_method": "bonferroni"},
    {"method": "wilcoxon", "corr_method": "bonferroni", "use_raw": False},
    {"n_genes": 11},
])  # fmt: skip
def test_options_equal_scanpy(data, kwargs):
    data.raw = data
    data.layers["counts"] = data.X * 1.5
    data.X = data.X * 0.5
    data.var["tested"] = np.arange(data.n_vars) % 3 != 1
    a, b = data, data.copy()
    call(scw, a, "group", **kwargs)
    call(sc, b, "group", **({"use_raw": False} | kwargs if "layer" in kwargs else kwargs))
    if "n_genes" in kwargs:
        for g in "abcde":
            x, y = by_name(a, g), by_name(b, g)
            assert len(x) == len(y) == 11
            np.testing.assert_allclose(x["scores"], y["scores"], rtol=1e-6)
            np.testing.assert_allclose(x["pvals_adj"], y["pvals_adj"], rtol=1e-6)
        return
    assert_same(a, b)


@pytest.mark.parametrize("base", [None, 2, 10])
def test_log_base(data, base):
    data.uns["log1p"] = {"base": base}
    a, b = data, data.copy()
    call(scw, a, "group")
    call(sc, b, "group")
    assert_same(a, b)


def exact_t(x: np.ndarray, y: np.ndarray, overestimate: bool) -> tuple[np.ndarray, np.ndarray]:
    with np.errstate(all="ignore"):
        t, p = scipy.stats.ttest_ind_from_stats(
            x.mean(0), x.std(0, ddof=1), len(x), y.mean(0), y.std(0, ddof=1), len(x) if overestimate else len(y), False
        )
    return np.where(np.isnan(t), 0, t), np.where(np.isnan(p), 1, p)


def exact_wilcoxon(x: np.ndarray, y: np.ndarray, tie_correct: bool, continuity: bool) -> tuple[np.ndarray, ...]:
    n1, n2 = len(x), len(y)
    n = n1 + n2
    both = np.concatenate([x, y])
    ranks = scipy.stats.rankdata(both, axis=0)
    r = ranks[:n1].sum(0)
    tc = np.array([scipy.stats.tiecorrect(c) for c in ranks.T]) if tie_correct else 1.0
    d = r - n1 * (n + 1) / 2
    if continuity:
        d = np.sign(d) * np.maximum(np.abs(d) - 0.5, 0)
    with np.errstate(all="ignore"):
        z = d / np.sqrt(tc * n1 * n2 * (n + 1) / 12)
    z = np.nan_to_num(z, nan=0.0)
    return z, 2 * scipy.stats.norm.sf(np.abs(z)), r - n1 * (n1 + 1) / 2


def raw_result(a: ad.AnnData, codes: np.ndarray, n_groups: int, **kwargs):
    """The float64 arrays before they are stored as float32."""
    from scwarp import _core
    from scwarp._context import make_context
    from scwarp._matrix import pack

    options = dict(
        method="t-test", reference=None, corr_method="benjamini-hochberg", rankby_abs=False, pts=False,
        mean_in_log_space=True, log_base=None, tie_correct=False, use_continuity=False, return_u_values=False,
        n_bins=1000, bin_range=None,
    )  # fmt: skip
    packed = pack(a.X, "test")
    ctx = make_context(op="test")
    return _core.tl.rank_genes_groups(ctx, packed.arg, codes.astype(np.int32), n_groups, **(options | kwargs))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("reference", [None, 3])
def test_against_exact_float64(data, dtype, reference):
    data.X = data.X.astype(dtype)
    codes = data.obs["group"].cat.codes.to_numpy()
    x = dense(data.X).astype(np.float64)

    def sides(g):
        return x[codes == g], x[codes == reference] if reference is not None else x[codes != g]

    tested = [g for g in range(5) if g != reference]
    for method in ("t-test", "t-test_overestim_var"):
        r = raw_result(data, codes, 5, method=method, reference=reference)
        assert r["tested"] == tested
        for i, g in enumerate(tested):
            t, p = exact_t(*sides(g), overestimate=method != "t-test")
            np.testing.assert_allclose(r["scores"][i], t, rtol=1e-9, atol=1e-11)
            np.testing.assert_allclose(r["pvals"][i], p, rtol=1e-9)
            np.testing.assert_allclose(r["pvals_adj"][i], scipy.stats.false_discovery_control(p), rtol=1e-9)
            m1, m2 = (s.mean(0) for s in sides(g))
            lfc = np.log2((np.expm1(m1) + 1e-9) / (np.expm1(m2) + 1e-9))
            np.testing.assert_allclose(r["logfoldchanges"][i], lfc, rtol=1e-9, atol=1e-12)
            assert (np.diff(r["scores"][i][r["order"][i]]) <= 0).all()
    for ties in (False, True):
        for continuity in (False, True):
            for u_values in (False, True):
                r = raw_result(
                    data, codes, 5, method="wilcoxon", reference=reference, tie_correct=ties,
                    use_continuity=continuity, return_u_values=u_values,
                )  # fmt: skip
                for i, g in enumerate(tested):
                    z, p, u = exact_wilcoxon(*sides(g), ties, continuity)
                    np.testing.assert_allclose(r["scores"][i], u if u_values else z, rtol=1e-9, atol=1e-11)
                    np.testing.assert_allclose(r["pvals"][i], p, rtol=1e-9)


def test_far_tails():
    """p-values down to the smallest doubles, against scipy."""
    r = np.random.default_rng(0)
    n = 4000
    codes = (np.arange(n) % 2).astype(np.int32)
    x = np.abs(r.normal(1, 1, (n, 60))) + np.where(codes[:, None] == 0, np.linspace(0, 3, 60), 0)
    a = ad.AnnData(x)
    got = raw_result(a, codes, 2)
    t, p = exact_t(x[codes == 0], x[codes == 1], False)
    assert p.min() < 1e-300
    np.testing.assert_allclose(got["scores"][0], t, rtol=1e-9)
    np.testing.assert_allclose(np.log(got["pvals"][0][p > 0]), np.log(p[p > 0]), rtol=1e-9)
    got = raw_result(a, codes, 2, method="wilcoxon", tie_correct=True)
    _, p, _ = exact_wilcoxon(x[codes == 0], x[codes == 1], True, False)
    np.testing.assert_allclose(got["pvals"][0], p, rtol=1e-9, atol=1e-307)  # scipy has no subnormal p


def test_means_of_counts(data):
    """mean_in_log_space=False: tests and fold changes on expm1(x)."""
    call(scw, data, "group", mean_in_log_space=False)
    x = np.expm1(dense(data.X).astype(np.float64))
    for g in "abc":
        mine = (data.obs["group"] == g).to_numpy()
        t, p = exact_t(x[mine], x[~mine], False)
        m1, m2 = x[mine].mean(0), x[~mine].mean(0)
        got = by_name(data, g).loc[data.var_names]
        np.testing.assert_allclose(got["scores"], t, rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(got["pvals"], p, rtol=1e-9)
        np.testing.assert_allclose(got["logfoldchanges"], np.log2((m1 + 1e-9) / (m2 + 1e-9)), rtol=1e-6, atol=1e-6)


def test_bin_ranges_that_are_no_names(data):
    with pytest.raises(ValueError, match="bin_range='lgo1p', expected 'auto', 'log1p' or"):
        scw.tl.rank_genes_groups(data, "group", method="wilcoxon_binned", bin_range="lgo1p")
    assert "rank_genes_groups" not in data.uns


def test_binned(data):
    """Equal to the exact test on values rounded to their bins."""
    for sparse in (True, False):
        for bin_range, low, high in (("log1p", 0.0, 15.0), ((0.5, 4.0), 0.5, 4.0), ("auto", None, None)):
            x = dense(data.X).astype(np.float64)
            if bin_range == "auto":
                low, high = x.min(), x.max()
            bins = np.clip(((x - low) * 40 / (high - low)).astype(int), 0, 39)
            if sparse:
                bins = np.where(x == 0, 0, bins + 1)
            a = ad.AnnData(data.X if sparse else dense(data.X), obs=data.obs, var=data.var)
            b = ad.AnnData(bins.astype(np.float32), obs=data.obs, var=data.var)
            call(scw, a, "group", method="wilcoxon_binned", n_bins=40, bin_range=bin_range, tie_correct=True)
            call(scw, b, "group", method="wilcoxon", tie_correct=True)
            for g in "ab":
                x, y = by_name(a, g), by_name(b, g)
                np.testing.assert_array_equal(x["scores"], y["scores"].loc[x.index])
    with pytest.warns(UserWarning, match="log1p"):
        scw.tl.rank_genes_groups(a, "group", method="wilcoxon_binned")


@pytest.mark.parametrize("method", METHODS)
def test_layouts(data, any_layout, method):
    a = ad.AnnData(any_layout(sp.csr_matrix(data.X)), obs=data.obs, var=data.var)
    b = ad.AnnData(dense(a.X).astype(np.float64), obs=data.obs, var=data.var)
    call(scw, a, "group", method=method)
    call(scw, b, "group", method=method)
    for g in "abcde":
        x, y = by_name(a, g), by_name(b, g)
        pd.testing.assert_frame_equal(x, y.loc[x.index], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("method", [*METHODS, "wilcoxon_binned"])
def test_same_bits_for_any_number_of_threads(data, method):
    results = []
    for threads in (1, 2, 3, 1):
        with scw.settings.override(n_threads=threads):
            call(scw, data, "group", method=method, tie_correct=True)
            r = data.uns["rank_genes_groups"]
            results.append({k: r[k].tolist() for k in ("names", "scores", "logfoldchanges", "pvals", "pvals_adj")})
    assert all(r == results[0] for r in results[1:])


def test_does_not_touch_x_and_copies(data):
    data.X.data[3] = 0  # a stored zero
    before = data.X.copy()
    out = scw.tl.rank_genes_groups(data, "group", copy=True, key_added="markers", method="wilcoxon")
    assert "markers" in out.uns and not data.uns.keys() & {"markers", "rank_genes_groups"}
    np.testing.assert_array_equal(data.X.data, before.data)
    assert data.X.nnz == before.nnz


def test_strings_and_views(data):
    a = data[:500].copy()
    a.obs["group"] = a.obs["group"].astype(object)
    view = a[:450]
    call(scw, view, "group", method="wilcoxon")
    assert not view.is_view and view.obs["group"].dtype == "category" and a.obs["group"].dtype == object
    b = data[:450].copy()
    b.obs["group"] = b.obs["group"].cat.reorder_categories(list("abcde"))
    call(scw, b, "group", method="wilcoxon")
    assert view.uns["rank_genes_groups"]["names"].dtype.names == tuple("abcde")
    for g in "abcde":
        pd.testing.assert_frame_equal(by_name(view, g), by_name(b, g))
    assert a.uns.keys() == {"log1p"}


def test_u_values_are_float64(data):
    call(scw, data, "group", method="wilcoxon", return_u_values=True)
    r = data.uns["rank_genes_groups"]
    assert r["scores"].dtype[0] == np.float64
    assert (np.concatenate([r["scores"][g] for g in "abcde"]) * 2 % 1 == 0).all()


def test_plots_and_tables_of_scanpy(data):
    import matplotlib

    matplotlib.use("agg")
    call(scw, data, "group", method="wilcoxon", pts=True)
    sc.pl.rank_genes_groups(data, show=False)
    sc.pl.rank_genes_groups_dotplot(data, n_genes=3, dendrogram=False, show=False)
    frame = sc.get.rank_genes_groups_df(data, None, pval_cutoff=0.1)
    assert {"names", "scores", "logfoldchanges", "pvals", "pvals_adj"} <= set(frame)
    sc.tl.filter_rank_genes_groups(data)


def test_round_trip(data, tmp_path):
    call(scw, data, "group", pts=True)
    data.uns["rank_genes_groups"]["params"].pop("layer")  # anndata before 0.12 writes no None
    data.write_h5ad(tmp_path / "a.h5ad")
    b = ad.read_h5ad(tmp_path / "a.h5ad")
    for g in "abcde":
        assert b.uns["rank_genes_groups"]["names"][g].tolist() == data.uns["rank_genes_groups"]["names"][g].tolist()


def test_errors_leave_the_object_alone(data):
    before = set(data.uns)
    for kwargs, error, match in (
        ({"method": "anova"}, ValueError, "method must be one of"),
        ({"corr_method": "none"}, ValueError, "corr_method"),
        ({"reference": "z"}, ValueError, "reference='z' needs to be one of"),
        ({"groups": "a"}, ValueError, "sequence of groups"),
        ({"groups": 3}, ValueError, "sequence of groups"),
        ({"groups": ["a", "zz"]}, ValueError, "'zz'"),
        ({"use_raw": True}, ValueError, "raw"),
        ({"layer": "no"}, KeyError, "no layer"),
        ({"mask_var": np.ones(3, bool)}, ValueError, "mask_var"),
        ({"return_u_values": True}, ValueError, "return_u_values"),
        ({"chunk_size": 0}, ValueError, "chunk_size"),
        ({"nonsense": 0}, TypeError, "nonsense"),
    ):
        with pytest.raises(error, match=match):
            scw.tl.rank_genes_groups(data, "group", **kwargs)
    with pytest.raises(KeyError, match="no column"):
        scw.tl.rank_genes_groups(data, "nothing")
    for kwargs, match in (
        ({"n_genes": -1}, "n_genes must not be negative"),
        ({"reference": "z"}, "reference='z'"),
        ({"mask_var": "no"}, "mask_var"),
        ({"method": "wilcoxon_binned", "n_bins": 0}, "n_bins"),
        ({"method": "wilcoxon_binned", "bin_range": (1, 0)}, "bin_range"),
    ):
        a = data.copy()
        a.obs["group"] = a.obs["group"].astype(object)
        view = a[:500]
        for x in (a, view):
            with pytest.raises(ValueError, match=match):
                scw.tl.rank_genes_groups(x, "group", **kwargs)
            assert x.obs["group"].dtype == object
        assert view.is_view
    data.X.data[10] = np.nan
    with pytest.raises(scw.DataError, match="NaN"):
        scw.tl.rank_genes_groups(data, "group")
    assert set(data.uns) == before


@pytest.mark.parametrize("names", [("", "x"), ("f1", ""), ("x", "", "f0")])
def test_group_without_a_name(data, names):
    """An empty category, which NumPy would name "f0"."""
    for i, x in enumerate((data, theirs := data.copy())):
        x.obs["g"] = pd.Categorical([names[j % len(names)] for j in range(x.n_obs)], categories=names)
        call((scw, sc)[i], x, "g")
    for key, table in theirs.uns["rank_genes_groups"].items():
        if key != "params":
            assert data.uns["rank_genes_groups"][key].dtype.names == table.dtype.names == names
    for group in names:
        a, b = (m.get.rank_genes_groups_df(x, group) for m, x in ((scw, data), (sc, theirs)))
        np.testing.assert_allclose(a["scores"], b["scores"], rtol=1e-5, atol=1e-5)
        assert (a["scores"] > 0).any()


def test_small_groups(data):
    labels = data.obs["group"].astype(object)
    labels.iloc[20] = "alone"
    data.obs["group"] = pd.Categorical(labels, categories=[*"abcde", "alone", "nobody"])
    with pytest.raises(ValueError, match="alone"):
        scw.tl.rank_genes_groups(data, "group")
    call(scw, data, "group", skip_empty_groups=True)
    assert data.uns["rank_genes_groups"]["names"].dtype.names == tuple("abcde")
    with pytest.raises(ValueError, match="reference"):
        scw.tl.rank_genes_groups(data, "group", skip_empty_groups=True, reference="alone")
    with pytest.warns(RuntimeWarning, match="25 cells"):
        scw.tl.rank_genes_groups(data[:60].copy(), "group", method="wilcoxon", skip_empty_groups=True)


def test_only_the_reference(data):
    call(scw, data, "group", groups=["a"], reference="a")
    assert set(data.uns["rank_genes_groups"]) == {"params"}


def test_real_data(shared_data):
    a = ad.read_h5ad(shared_data / "pbmc3k" / "pbmc3k_raw.h5ad")
    sc.pp.filter_cells(a, min_genes=500)
    sc.pp.filter_genes(a, min_cells=3)
    sc.pp.normalize_total(a, target_sum=1e4)
    sc.pp.log1p(a)
    a.obs["group"] = pd.Categorical(np.where(dense(a[:, "CST3"].X).ravel() > 2, "myeloid", "other"))
    b = a.copy()
    for method in ("t-test", "wilcoxon"):
        call(scw, a, "group", method=method)
        call(sc, b, "group", method=method)
        assert_same(a, b, rtol=1e-5)
    assert a.uns["rank_genes_groups"]["names"]["myeloid"][:5].tolist() == (
        b.uns["rank_genes_groups"]["names"]["myeloid"][:5].tolist()
    )


def sklearn_coefficients(x, y, **kwargs) -> np.ndarray:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(tol=1e-10, max_iter=2000, solver="newton-cg", **kwargs).fit(x, y).coef_


@pytest.mark.parametrize("kwargs", [{}, {"C": 0.1}, {"fit_intercept": False}])
def test_logreg_against_sklearn(data, kwargs):
    data.X = data.X.astype(np.float64)
    call(scw, data, "group", method="logreg", tol=1e-9, max_iter=5000, **kwargs)
    r = data.uns["rank_genes_groups"]
    assert set(r) == {"params", "names", "scores"}
    known = data.obs["group"].notna().to_numpy()
    want = sklearn_coefficients(data.X[known], data.obs["group"].cat.codes[known], **kwargs)
    for i, g in enumerate("edcba"):
        np.testing.assert_allclose(by_name(data, g)["scores"].loc[data.var_names], want[i], rtol=1e-4, atol=1e-6)
        assert (np.diff(r["scores"][g]) <= 0).all()


@pytest.mark.parametrize("kwargs", [
    {"groups": ["b", "d"]},
    {"groups": ["d", "b"]},
    {"groups": ["d"], "reference": "a"},
    {"groups": ["d", "a"], "reference": "b"},
    {"groups": ["a", "c", "b"], "rankby_abs": True},
    {},
])  # fmt: skip
def test_logreg_equals_scanpy(data, kwargs):
    data.X = data.X.astype(np.float64)  # scikit-learn computes float32 data in float32
    a, b = data, data.copy()
    for m, x in ((scw, a), (sc, b)):
        call(m, x, "group", method="logreg", tol=1e-10, max_iter=5000, solver="newton-cg", **kwargs)
    x, y = a.uns["rank_genes_groups"], b.uns["rank_genes_groups"]
    assert set(x) == set(y) and x["scores"].dtype == y["scores"].dtype
    for g in y["names"].dtype.names:
        p, q = by_name(a, g), by_name(b, g)
        np.testing.assert_allclose(p["scores"], q["scores"].loc[p.index], rtol=1e-4, atol=1e-6)


def test_logreg_layouts_threads_and_errors(data):
    results = []
    for threads, x in ((1, data.X), (2, data.X), (3, sp.csc_matrix(data.X)), (2, dense(data.X))):
        a = ad.AnnData(x, obs=data.obs, var=data.var)
        with scw.settings.override(n_threads=threads):
            call(scw, a, "group", method="logreg")
        results.append([a.uns["rank_genes_groups"]["scores"][g].tolist() for g in "abcde"])
    assert all(r == results[0] for r in results[1:])
    for kwargs, error in (
        ({"groups": ["a"]}, ValueError),
        ({"penalty": "l1"}, ValueError),
        ({"nonsense": 1}, TypeError),
        ({"C": -1}, ValueError),
    ):
        with pytest.raises(error):
            scw.tl.rank_genes_groups(data, "group", method="logreg", **kwargs)
    data.X.data[4] = np.inf
    with pytest.raises(scw.DataError, match="infinite"):
        scw.tl.rank_genes_groups(data, "group", method="logreg")


def test_logreg_under_its_old_name(data):
    with pytest.warns(FutureWarning, match="deprecated"):
        scw.tl.rank_genes_groups_logreg(data, "group", n_genes=5, key_added="old", C=0.1)
    scw.tl.rank_genes_groups(data, "group", method="logreg", n_genes=5, C=0.1)
    old, new = data.uns["old"], data.uns["rank_genes_groups"]
    assert old["params"] == new["params"] and len(new["names"]) == 5
    for key in ("names", "scores"):
        np.testing.assert_array_equal(old[key], new[key])
