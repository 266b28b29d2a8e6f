from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import _core
from .._context import is_cupy, make_context, require_integer
from .._groups import categorical_column
from .._matrix import is_sparse, pack
from .._on_disk import is_on_disk
from .._settings import logger
from .._slots import boolean_mask, get_matrix, make_actual, require_anndata
from .._subset import subset_matrix

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from anndata import AnnData

_OP = "tl.rank_genes_groups"
_METHODS = ("t-test", "t-test_overestim_var", "wilcoxon", "wilcoxon_binned", "logreg")
_CORRECTIONS = ("benjamini-hochberg", "bonferroni")
_DTYPES = {"scores": "float32", "logfoldchanges": "float32", "pvals": "float64", "pvals_adj": "float64"}


def rank_genes_groups(
    adata: AnnData,
    groupby: str,
    *,
    mask_var: Any = None,
    use_raw: bool | None = None,
    groups: str | Iterable[Any] = "all",
    reference: str = "rest",
    n_genes: int | None = None,
    rankby_abs: bool = False,
    pts: bool = False,
    key_added: str | None = None,
    copy: bool = False,
    method: str | None = None,
    corr_method: str = "benjamini-hochberg",
    tie_correct: bool = False,
    use_continuity: bool = False,
    return_u_values: bool = False,
    layer: str | None = None,
    mean_in_log_space: bool = True,
    chunk_size: int | None = None,
    multi_gpu: Any = None,
    n_bins: int | None = None,
    bin_range: Any = None,
    skip_empty_groups: bool = False,
    device: str | None = None,
    **kwds: Any,
) -> AnnData | None:
    """Rank genes by how well they mark each group of cells. Expects logarithmised data.

    Parameters
    ----------
    adata
        ``X`` (or ``raw``, or ``layer``): cells x genes, dense, CSR or CSC.
    groupby
        Column of ``obs``; strings become categorical.
    mask_var
        Boolean array or column of ``var``: test these genes only.
    use_raw
        Test ``adata.raw``; ``None``: if there is one and no ``layer`` is given.
    groups
        ``"all"``, or the groups to test, in this order.
    reference
        ``"rest"``: every other cell, also of groups not selected and without a label; else the group to compare with.
    n_genes
        Keep the best ``n_genes`` of each group (``None``: all); p-values are adjusted over all genes.
    rankby_abs
        Order by ``|score|``.
    pts
        Also store the fraction of cells with a non-zero value.
    key_added
        Slot of ``uns``; default ``"rank_genes_groups"``.
    copy
        Return a changed copy.
    method
        ``"t-test"`` (default), ``"t-test_overestim_var"``, ``"wilcoxon"``, ``"wilcoxon_binned"``, or ``"logreg"``: the
        coefficients of one multinomial logistic regression on the selected cells (only ``names`` and ``scores`` are
        written; with two groups one field, under the first group, with the log-odds of the later category, as scanpy).
    corr_method
        ``"benjamini-hochberg"`` or ``"bonferroni"``.
    tie_correct, use_continuity, return_u_values
        Wilcoxon: variance reduced for ties; continuity correction; store U (float64) as score.
    mean_in_log_space
        Fold changes from ``expm1`` of the means (as scanpy), else from the means of ``expm1(x)``, and t-tests on it.
    chunk_size, multi_gpu
        Accepted for scripts written for other packages; results do not depend on them.
    n_bins, bin_range
        ``wilcoxon_binned``: number of bins (1000); ``"auto"`` (data range, default), ``"log1p"`` ([0, 15]) or a pair.
    skip_empty_groups
        Leave out groups with fewer than two cells instead of raising.
    device
        ``"cpu"`` or ``"cuda"``; default where the data are, else ``settings.device``.
    kwds
        ``logreg``: ``C`` (1.0), ``tol`` (1e-5), ``max_iter`` (1000), ``fit_intercept`` of scikit-learn's
        ``LogisticRegression``; its other options are accepted where they do not change the result.

    Notes
    -----
    Writes ``uns[key_added]``: ``params``, ``names``, ``scores``, ``logfoldchanges``, ``pvals``, ``pvals_adj`` (record
    arrays, one field per tested group), ``pts``, ``pts_rest``. Genes come by descending score; ties by position in
    ``var`` (scanpy leaves their order open). Exact ranks and sums: the same bits for any number of threads.
    """
    import pandas as pd

    require_anndata(adata, _OP)
    method = "t-test" if method is None else method
    if "only_positive" in kwds:
        rankby_abs = not kwds.pop("only_positive")
    if method not in _METHODS:
        raise ValueError(f"{_OP}: method must be one of {_METHODS} (got {method!r})")
    if corr_method not in _CORRECTIONS:
        raise ValueError(f"{_OP}: corr_method must be one of {_CORRECTIONS} (got {corr_method!r})")
    if kwds and method != "logreg":
        raise TypeError(f"{_OP}: unknown keyword {next(iter(kwds))!r} for method {method!r}")
    fit = _logreg_options(kwds)
    if return_u_values and not method.startswith("wilcoxon"):
        raise ValueError(f"{_OP}: return_u_values needs method='wilcoxon' (got {method!r})")
    if chunk_size is not None and chunk_size <= 0:
        raise ValueError(f"{_OP}: chunk_size must be positive (got {chunk_size})")
    if use_raw and layer is not None:
        raise ValueError(f"{_OP}: give layer or use_raw=True, not both")
    if use_raw and adata.raw is None:
        raise ValueError(f"{_OP}: use_raw=True, but adata.raw is empty")
    use_raw = (adata.raw is not None and layer is None) if use_raw is None else bool(use_raw)

    if n_genes is not None and require_integer(_OP, "n_genes", n_genes) < 0:
        raise ValueError(f"{_OP}: n_genes must not be negative (got {n_genes})")

    if copy:
        adata = adata.copy()
    labels = categorical_column(adata, groupby, _OP)
    names, codes, reference_index = select_groups(labels, groups, reference, groupby, skip_empty_groups)

    source = adata.raw if use_raw else adata
    x = adata.raw.X if use_raw else get_matrix(adata, _OP, layer=layer)
    var_names = source.var_names
    mask = boolean_mask(mask_var, source.var, x.shape[1], _OP, "mask_var")
    if mask is not None:
        x, var_names = subset_matrix(x, None, mask, _OP), var_names[mask]
    ctx = make_context(x, op=_OP, device=device)
    packed = pack(x, _OP, blocks=True)
    if method != "logreg" and _looks_like_counts(packed.matrix):
        logger.warning("%s: the data look like raw counts; logarithmise them first", _OP)

    result: dict[str, Any] = {
        "params": {
            "groupby": groupby,
            "reference": reference,
            "method": method,
            "use_raw": use_raw,
            "layer": layer,
            "corr_method": corr_method,
            "mean_in_log_space": mean_in_log_space,
        }
    }
    if method.startswith("wilcoxon"):
        result["params"] |= {"tie_correct": tie_correct, "return_u_values": return_u_values}
    tested = [i for i in range(len(names)) if i != reference_index]
    if method == "logreg":
        r, fields = _logreg(ctx, packed, names, codes, labels, rankby_abs, fit)
        result |= _tables(r, fields, var_names, n_genes, False)
    elif tested:
        if method.startswith("wilcoxon"):
            _warn_small_groups(codes, len(names), reference_index)
        log_base = adata.uns.get("log1p", {}).get("base")
        r = _core.tl.rank_genes_groups(
            ctx,
            packed.arg,
            codes,
            len(names),
            method=method,
            reference=reference_index,
            corr_method=corr_method,
            rankby_abs=rankby_abs,
            pts=pts,
            mean_in_log_space=mean_in_log_space,
            log_base=None if log_base is None else float(log_base),
            tie_correct=tie_correct,
            use_continuity=use_continuity,
            return_u_values=return_u_values,
            n_bins=1000 if n_bins is None else int(n_bins),
            bin_range=_bin_range(method, bin_range, packed.matrix, adata),
        )
        result |= _tables(r, [names[i] for i in tested], var_names, n_genes, return_u_values)
        for key in ("pts", "pts_rest"):
            if key in r:
                result[key] = pd.DataFrame(r[key].T, index=var_names, columns=names)
    make_actual(adata, _OP)
    if not isinstance(adata.obs[groupby].dtype, pd.CategoricalDtype):
        adata.obs[groupby] = labels  # as scanpy leaves it
    adata.uns["rank_genes_groups" if key_added is None else key_added] = result
    return adata if copy else None


def rank_genes_groups_logreg(
    adata: AnnData,
    groupby: str,
    *,
    groups: str | Iterable[Any] = "all",
    use_raw: bool | None = None,
    reference: str = "rest",
    n_genes: int | None = None,
    key_added: str | None = None,
    layer: str | None = None,
    device: str | None = None,
    **kwds: Any,
) -> None:
    """``rank_genes_groups(..., method="logreg")``, under its old name in rapids-singlecell.

    Parameters
    ----------
    adata, groupby, groups, use_raw, reference, n_genes, key_added, layer, kwds
        As there.
    """
    warnings.warn(
        "tl.rank_genes_groups_logreg is deprecated: use tl.rank_genes_groups(method='logreg')",
        FutureWarning,
        stacklevel=2,
    )
    rank_genes_groups(
        adata,
        groupby,
        groups=groups,
        use_raw=use_raw,
        reference=reference,
        n_genes=n_genes,
        key_added=key_added,
        layer=layer,
        method="logreg",
        device=device,
        **kwds,
    )


def select_groups(
    labels: Any, groups: Any, reference: str, groupby: str, skip_empty: bool
) -> tuple[list[str], Any, int | None]:
    """Names of the selected groups, the index of its group for every cell (-1: none), the index of the reference."""
    categories = list(labels.categories)
    as_text = [str(c) for c in categories]
    if isinstance(groups, str) and groups == "all":
        wanted = list(range(len(categories)))
    elif isinstance(groups, (str, int)):
        raise ValueError(f"{_OP}: groups must be 'all' or a sequence of groups (got {groups!r})")
    else:
        wanted = []
        for g in groups:
            if str(g) not in as_text:
                if skip_empty:
                    continue
                raise ValueError(f"{_OP}: no group {g!r} in obs[{groupby!r}] (there are: {as_text})")
            if (index := as_text.index(str(g))) not in wanted:
                wanted.append(index)
    reference_category = None
    if reference != "rest":
        if str(reference) not in as_text:
            raise ValueError(f"{_OP}: reference={reference!r} needs to be one of obs[{groupby!r}]: {as_text}")
        reference_category = as_text.index(str(reference))
        if reference_category not in wanted:
            wanted.append(reference_category)
    small = _small_groups(labels.codes[: 1 << 16], wanted, len(categories))  # nearly always all that has to be counted
    if small and len(labels.codes) > 1 << 16:
        small = _small_groups(labels.codes, wanted, len(categories))
    if small and not skip_empty:
        text = ", ".join(f"{as_text[i]} ({count})" for i, count in small.items())
        raise ValueError(f"{_OP}: groups need at least two cells (got {text}); skip_empty_groups=True leaves them out")
    if reference_category in small:
        raise ValueError(f"{_OP}: the reference {reference!r} has fewer than two cells")
    wanted = [i for i in wanted if i not in small]
    if not wanted:
        raise ValueError(f"{_OP}: no group of obs[{groupby!r}] has two cells")
    if wanted == list(range(len(categories))):
        codes = labels.codes.astype(np.int32)
    else:
        lookup = np.full(len(categories) + 1, -1, dtype=np.int32)  # the last entry is for cells without a label
        lookup[wanted] = np.arange(len(wanted), dtype=np.int32)
        codes = lookup.take(labels.codes, mode="wrap")
    reference_index = None if reference_category is None else wanted.index(reference_category)
    return [as_text[i] for i in wanted], codes, reference_index


def _small_groups(codes: Any, wanted: list[int], n: int) -> dict[int, int]:
    """The wanted of n groups that have fewer than two cells, and how many."""
    own = codes.view(np.uint8) if codes.dtype == np.int8 else codes[codes >= 0]
    counts = np.bincount(own, minlength=n)  # the byte of code -1 is beyond the categories
    return {i: int(counts[i]) for i in wanted if counts[i] < 2}


def _logreg_options(kwds: dict[str, Any]) -> dict[str, Any]:
    options = {"C": 1.0, "tol": 1e-5, "max_iter": 1000, "fit_intercept": True}
    harmless = {
        "penalty": ("l2",),
        "solver": ("lbfgs", "newton-cg", "newton-cholesky", "sag", "saga"),
        "multi_class": ("auto", "multinomial"),
        "class_weight": (None,),
        "dual": (False,),
        "l1_ratio": (None,),
        "warm_start": (False,),
    }
    for key, value in kwds.items():
        if key in options:
            options[key] = value
        elif key in harmless:
            if value not in harmless[key]:
                raise ValueError(f"{_OP}: logreg has {key}={harmless[key][0]!r} only (got {value!r})")
        elif key not in ("random_state", "n_jobs", "verbose", "intercept_scaling"):
            raise TypeError(f"{_OP}: unknown keyword {key!r} for method 'logreg'")
    return options


def _logreg(
    ctx: Any, packed: Any, names: list[str], codes: Any, labels: Any, rankby_abs: bool, fit: dict[str, Any]
) -> tuple[dict[str, Any], list[str]]:
    """Coefficients and their order, and the groups that they stand for."""
    if len(names) == 1:
        raise ValueError(f"{_OP}: Cannot perform logistic regression on a single cluster.")
    if len(names) == 2:  # the second class is the later category, whatever the order of `groups`
        later = max(range(2), key=lambda g: [str(c) for c in labels.categories].index(names[g]))
        codes = np.where(codes < 0, codes, (codes == later).astype(np.int32)).astype(np.int32)
    scores, _, n_iterations, gradient, converged = _core.tl.logistic_regression(
        ctx,
        packed.arg,
        codes,
        len(names),
        float(fit["C"]),
        float(fit["tol"]),
        int(fit["max_iter"]),
        bool(fit["fit_intercept"]),
    )
    if not converged:
        logger.warning(
            "%s: logreg stopped after %d iterations with a gradient of %.2g (tol %.2g)",
            _OP,
            n_iterations,
            gradient,
            fit["tol"],
        )
    order = np.argsort(-np.abs(scores) if rankby_abs else -scores, axis=1, kind="stable")
    return {"scores": scores, "order": order}, names[: len(scores)]


def _tables(
    r: dict[str, Any], names: Sequence[str], var_names: Any, n_genes: int | None, u_values: bool
) -> dict[str, Any]:
    n = len(var_names) if n_genes is None else min(int(n_genes), len(var_names))
    order = np.ascontiguousarray(r["order"], dtype=np.int32)
    ctx = make_context(op=_OP, device="cpu")
    assert len(order) == len(names)
    # numpy.zeros leaves the objects out, which numpy.empty would set to None one by one.
    best = np.zeros(n, dtype=_fields(names, "O"))
    _core.tl.gather_names(ctx, var_names.tolist(), order, best.ctypes.data, n)
    tables: dict[str, Any] = {"names": best.view(np.recarray)}
    for key, dtype in _DTYPES.items():
        if key in r:
            dtype = "float64" if key == "scores" and u_values else dtype
            values = np.ascontiguousarray(r[key], dtype=np.float64)
            columns = _core.tl.gather_ranked(ctx, values, order, n, dtype == "float32")
            tables[key] = columns.view(_fields(names, dtype)).reshape(n).view(np.recarray)
    return tables


def _fields(names: Sequence[str], kind: str) -> np.dtype[Any]:
    """One field of ``kind`` per name. NumPy renames an empty name, unless it is set afterwards."""
    fields = np.dtype([(f"f{i}", kind) for i in range(len(names))])
    fields.names = tuple(names)
    return fields


def _warn_small_groups(codes: Any, n_groups: int, reference: int | None) -> None:
    counts = np.bincount(codes[codes >= 0], minlength=n_groups)
    other = counts[reference] if reference is not None else len(codes) - counts
    if np.any((counts <= 25) | (other <= 25)):
        warnings.warn(
            f"{_OP}: a group or its counterpart has 25 cells or fewer: the normal approximation is poor",
            RuntimeWarning,
            stacklevel=3,
        )


def _bin_range(method: str, bin_range: Any, x: Any, adata: AnnData) -> tuple[float, float] | None:
    if method != "wilcoxon_binned":
        return None
    if "log1p" not in adata.uns:
        warnings.warn(f"{_OP}: no uns['log1p']: are the data logarithmised?", UserWarning, stacklevel=3)
    if bin_range is None or isinstance(bin_range, str):
        if bin_range in (None, "auto"):
            return None
        if bin_range != "log1p":
            raise ValueError(f"{_OP}: bin_range={bin_range!r}, expected 'auto', 'log1p' or (low, high)")
        values = x.data if is_sparse(x) else x
        if values.size and values.min() < 0:
            warnings.warn(f"{_OP}: negative values: bin_range='auto' is used", UserWarning, stacklevel=3)
            return None
        return (0.0, 15.0)
    low, high = bin_range
    return (float(low), float(high))


def _looks_like_counts(x: Any) -> bool:
    """Whether all values are non-negative integers; the first few decide nearly always."""
    if is_on_disk(x):
        x = x[:512]  # the first few cells decide
    values = x.data if is_sparse(x) else x.ravel()
    start, step = 0, 4096
    while start < len(values):
        v = values[start : start + step]
        v = v.get() if is_cupy(v) else v
        if (v < 0).any() or (v != np.floor(v)).any():
            return False
        start, step = start + step, min(2 * step, 2**22)
    return True
