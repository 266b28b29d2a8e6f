from __future__ import annotations

import contextlib
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import _core
from .._context import is_cupy, make_context, require_integer
from .._groups import categorical_column, is_text
from .._matrix import pack
from .._settings import logger
from .._slots import get_matrix, is_anndata, make_actual, refuse_backed
from .._subset import subset_inplace

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

_OP = "pp.highly_variable_genes"
_DISPERSION = ("seurat", "cell_ranger")
_STANDARDISED = ("seurat_v3", "seurat_v3_paper")
_RESIDUALS = ("pearson_residuals",)
_ZEROS = ("poisson_gene_selection",)
_FLAVORS = _DISPERSION + _STANDARDISED + _RESIDUALS + _ZEROS
_CUTOFFS = {"min_mean": 0.0125, "max_mean": 3, "min_disp": 0.5, "max_disp": np.inf}


def highly_variable_genes(
    adata: AnnData,
    *,
    layer: str | None = None,
    n_top_genes: int | None = None,
    min_disp: float = 0.5,
    max_disp: float = np.inf,
    min_mean: float = 0.0125,
    max_mean: float = 3,
    span: float = 0.3,
    n_bins: int = 20,
    flavor: str = "seurat",
    subset: bool = False,
    inplace: bool = True,
    batch_key: str | None = None,
    filter_unexpressed_genes: bool | None = None,
    check_values: bool = True,
    theta: float = 100,
    clip: float | None = None,
    chunksize: int = 1000,
    n_samples: int = 10000,
    device: str | None = None,
) -> pd.DataFrame | None:
    """Mark the genes that vary more between cells than genes of their mean expression usually do.

    Parameters
    ----------
    adata
        ``X`` (or ``layer``): log1p data for ``"seurat"``, counts or normalised counts for ``"cell_ranger"``, counts for
        the others; dense, CSR or CSC.
    n_top_genes
        Genes to select. ``None``: the four cutoffs decide (flavors on counts: 2000).
    min_disp, max_disp, min_mean, max_mean
        Strict bounds on the normalised dispersion and the mean; ignored with ``n_top_genes``.
    span
        ``seurat_v3*``: share of the genes in a local fit, in (0, 1].
    n_bins
        ``seurat``: bins of the mean.
    flavor
        ``"seurat"``, ``"cell_ranger"``, ``"seurat_v3"``, ``"seurat_v3_paper"``, ``"pearson_residuals"`` or
        ``"poisson_gene_selection"``.
    subset
        Keep the selected genes only.
    inplace
        ``False``: return a data frame and leave ``adata`` alone.
    batch_key
        Column of ``obs``: select in each batch, then merge. A column of text becomes categorical (with ``inplace``).
    filter_unexpressed_genes
        ``seurat``, ``cell_ranger``: leave genes without counts out of the bins. ``None``: only with ``batch_key``,
        where it is always done.
    check_values
        Flavors on counts: warn if the values are not counts.
    theta, clip
        ``pearson_residuals``: overdispersion, and limit of the residuals (``None``: the square root of the number of
        cells of the batch).
    chunksize, n_samples
        Accepted for the sake of rapids-singlecell.
    device
        ``"cpu"`` or ``"cuda"``; default where the data are, else ``settings.device``.

    Notes
    -----
    Writes ``var["highly_variable"]``, ``var["means"]`` and, by flavor, ``dispersions``, ``dispersions_norm`` or
    ``variances``, ``variances_norm`` (or ``residual_variances``), ``highly_variable_rank``; with ``batch_key`` also
    ``highly_variable_nbatches`` and (not ``seurat_v3*``) ``highly_variable_intersection``; ``uns["hvg"]``. Same bits
    for any number of threads (tier A).

    ``"poisson_gene_selection"`` writes ``observed_fraction_zeros`` (cells without a count), ``expected_fraction_zeros``
    (mean over cells of ``exp(-share of the gene * total of the cell)``), ``prob_zero_enrichment`` (observed times
    1 - expected), ``prob_zero_enrichment_rank`` (ascending), all medians over batches, ``prob_zero_enriched_nbatches``
    and ``highly_variable``; nothing is sampled.
    """
    if not is_anndata(adata):
        raise ValueError(f"{_OP}: expected an AnnData (got {type(adata).__name__}); inplace=False returns a data frame")
    if flavor not in _FLAVORS:
        raise ValueError(f"{_OP}: unknown flavor {flavor!r} (there are: {', '.join(_FLAVORS)})")
    if flavor in _RESIDUALS + _ZEROS and n_top_genes is None:
        warnings.warn(
            "`n_top_genes` is not given: the 2000 most variable genes are selected.", UserWarning, stacklevel=2
        )
    given = {"min_mean": min_mean, "max_mean": max_mean, "min_disp": min_disp, "max_disp": max_disp}
    if n_top_genes is not None and flavor in _DISPERSION and given != _CUTOFFS:
        warnings.warn("If you pass `n_top_genes`, all cutoffs are ignored.", UserWarning, stacklevel=2)
    if subset and inplace:
        refuse_backed(adata, _OP)
    n_bins = require_integer(_OP, "n_bins", n_bins)
    source = get_matrix(adata, _OP, layer=layer)
    codes, n_batches = _batches(adata, batch_key)
    ctx = make_context(source, op=_OP, device=device)
    if codes is not None and is_cupy(source):
        import cupy

        codes = cupy.asarray(codes)
    base = adata.uns.get("log1p", {}).get("base") if flavor == "seurat" else None
    r = _core.pp.highly_variable_genes(
        ctx,
        pack(source, _OP, blocks=True).arg,
        flavor,
        None if n_top_genes is None else int(n_top_genes),
        **given,
        n_bins=n_bins,
        span=span,
        log_base=None if base is None else float(np.asarray(base)),
        batches=codes,
        n_batches=n_batches,
        filter_unexpressed_genes=bool(filter_unexpressed_genes),
        tie_order=_name_order(adata) if n_batches and n_top_genes is not None and flavor in _DISPERSION else None,
        theta=float(theta),
        clip=None if clip is None else float(clip),
    )
    if flavor not in _DISPERSION and check_values and not r["counts"]:
        warnings.warn(
            f"`flavor='{flavor}'` expects raw count data, but non-integers were found.", UserWarning, stacklevel=2
        )
    if r["fewer_than_asked"]:
        if n_top_genes is not None and n_top_genes > adata.n_vars:
            logger.info("%s: n_top_genes=%d > %d genes", _OP, n_top_genes, adata.n_vars)
        else:
            warnings.warn(
                "`n_top_genes` > number of normalized dispersions, returning all genes with normalized dispersions.",
                UserWarning,
                stacklevel=2,
            )
    columns = _columns(r, flavor, batched=bool(n_batches))
    selected = columns["highly_variable"]
    if not inplace:
        import pandas as pd

        frame = pd.DataFrame(columns, index=adata.var_names)
        return frame.loc[selected] if subset else frame
    make_actual(adata, _OP)
    if batch_key and is_text(adata.obs[batch_key]):
        adata.obs[batch_key] = categorical_column(adata, batch_key, _OP)
    adata.uns["hvg"] = {"flavor": "poisson_zeros" if flavor in _ZEROS else flavor}
    if flavor in _RESIDUALS:
        adata.uns["hvg"]["computed_on"] = layer or "adata.X"
    for name, values in columns.items():
        adata.var[name] = values.astype(np.float32) if name == "dispersions_norm" else values
    if subset:
        subset_inplace(adata, _OP, genes=np.asarray(selected, dtype=bool))
    return None


def _batches(adata: AnnData, batch_key: str | None) -> tuple[Any, int]:
    """Code of each cell's batch (-1: none), over the batches that occur, sorted."""
    if not batch_key:
        return None, 0
    if batch_key not in adata.obs:
        raise KeyError(f"{_OP}: batch_key={batch_key!r} is not in obs (there are: {list(adata.obs)})")
    import pandas as pd

    column = adata.obs[batch_key]
    if isinstance(column.dtype, pd.CategoricalDtype):  # its codes are at hand: no million values to hash
        own, categories = column.cat.codes.to_numpy(), column.cat.categories
        used = np.flatnonzero(np.bincount(own.astype(np.int64) + 1, minlength=len(categories) + 1)[1:])
        place = np.full(len(categories) + 1, -1, np.int32)  # the last one stands for code -1
        place[used[np.argsort(categories[used], kind="stable")]] = np.arange(len(used), dtype=np.int32)
        codes, n_names = place[own], len(used)
    else:
        codes, names = pd.factorize(column, sort=True)
        n_names = len(names)
    if n_names == 0:
        raise ValueError(f"{_OP}: obs[{batch_key!r}] has no value")
    return np.ascontiguousarray(codes, dtype=np.int32), n_names


def _name_order(adata: AnnData) -> Any:
    names = adata.var_names.to_numpy()
    with contextlib.suppress(UnicodeEncodeError):
        names = names.astype("S")  # compared as bytes: the same order as that of the strings, twice as fast
    order = np.empty(adata.n_vars, np.int32)
    order[np.argsort(names, kind="stable")] = np.arange(adata.n_vars, dtype=np.int32)
    return order


def _columns(r: dict[str, Any], flavor: str, *, batched: bool) -> dict[str, Any]:
    selected = r["highly_variable"].astype(bool)
    if flavor in _ZEROS:
        return {
            "observed_fraction_zeros": r["observed_zeros"],
            "expected_fraction_zeros": r["expected_zeros"],
            "prob_zero_enriched_nbatches": r["n_batches"].astype(np.int64),
            "prob_zero_enrichment": r["zero_enrichment"],
            "prob_zero_enrichment_rank": r["rank"],
            "highly_variable": selected,
        }
    if flavor in _RESIDUALS:
        columns = {
            "means": r["means"],
            "variances": r["variances"],
            "residual_variances": r["variances_norm"],
            "highly_variable_rank": r["rank"].astype(np.float32),
        }
        if batched:
            columns["highly_variable_nbatches"] = r["n_batches"].astype(np.int64)
            columns["highly_variable_intersection"] = r["intersection"].astype(bool)
        columns["highly_variable"] = selected
        return columns
    if flavor in _STANDARDISED:
        columns = {
            "highly_variable": selected,
            "highly_variable_rank": r["rank"].astype(np.float32),
            "means": r["means"],
            "variances": r["variances"],
            "variances_norm": r["variances_norm"],
        }
        if batched:
            columns["highly_variable_nbatches"] = r["n_batches"].astype(np.int64)
        return columns
    columns = {
        "highly_variable": selected,
        "means": r["means"],
        "dispersions": r["dispersions"],
        "dispersions_norm": r["dispersions_norm"],
    }
    if batched:
        columns["highly_variable_nbatches"] = r["n_batches"].astype(np.int64)
        columns["highly_variable_intersection"] = r["intersection"].astype(bool)
    return columns
