from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import _core
from .._context import DEFAULT_SEED, is_cupy, make_context
from .._matrix import is_sparse, pack
from .._on_disk import is_on_disk, row_ranges
from .._settings import logger, settings
from .._slots import get_matrix, make_actual, require_anndata

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from anndata import AnnData

_OP = "tl.score_genes"


def score_genes(
    adata: AnnData,
    gene_list: Sequence[str],
    *,
    ctrl_as_ref: bool = True,
    ctrl_size: int = 50,
    gene_pool: Sequence[str] | None = None,
    n_bins: int = 25,
    score_name: str = "score",
    random_state: Any = DEFAULT_SEED,
    rng: Any = None,
    copy: bool = False,
    use_raw: bool | None = None,
    layer: str | None = None,
    device: str | None = None,
) -> AnnData | None:
    """Score a set of genes in every cell: its mean minus the mean of control genes of similar expression.

    Parameters
    ----------
    adata
        ``X`` (or ``raw``, or ``layer``): cells x genes, dense, CSR or CSC.
    gene_list
        The genes; names that are not there are left out with a warning.
    ctrl_as_ref
        Take listed genes out of the controls after sampling (True, as scanpy), or before.
    ctrl_size
        Control genes drawn from every bin of expression that holds a listed gene.
    gene_pool
        Genes to draw controls from; default all.
    n_bins
        Number of bins.
    score_name
        Column of ``obs`` for the score.
    random_state
        Seed of NumPy's global generator, from which the controls are drawn as in scanpy (default ``settings.seed``);
        ``None`` leaves it as it is.
    rng
        Alternatively, anything that ``numpy.random.default_rng`` takes; not together with ``random_state``.
    copy
        Return a changed copy.
    use_raw
        Read ``adata.raw``; ``None``: if there is one and no ``layer`` is given.
    layer
        Read this layer instead of ``X``.
    device
        ``"cpu"`` or ``"cuda"``; default where the data are, else ``settings.device``.

    Notes
    -----
    Writes ``obs[score_name]`` (float64). For an integer seed the control genes are scanpy's.
    """
    require_anndata(adata, _OP)
    if copy:
        adata = adata.copy()
    score = _score(
        adata,
        gene_list,
        ctrl_as_ref=ctrl_as_ref,
        ctrl_size=ctrl_size,
        gene_pool=gene_pool,
        n_bins=n_bins,
        random_state=random_state,
        rng=rng,
        use_raw=use_raw,
        layer=layer,
        device=device,
    )
    make_actual(adata, _OP)
    adata.obs[score_name] = score
    return adata if copy else None


def _score(
    adata: AnnData,
    gene_list: Sequence[str],
    *,
    ctrl_as_ref: bool = True,
    ctrl_size: int = 50,
    gene_pool: Sequence[str] | None = None,
    n_bins: int = 25,
    random_state: Any = DEFAULT_SEED,
    rng: Any = None,
    use_raw: bool | None = None,
    layer: str | None = None,
    device: str | None = None,
) -> Any:
    """The scores as a Series; changes nothing."""
    if rng is not None and random_state is not DEFAULT_SEED:
        raise TypeError(f"{_OP}: give random_state or rng, not both")
    if use_raw and layer is not None:
        raise ValueError(f"{_OP}: give layer or use_raw=True, not both")
    if use_raw and adata.raw is None:
        raise ValueError(f"{_OP}: use_raw=True, but adata.raw is empty")
    use_raw = (adata.raw is not None and layer is None) if use_raw is None else bool(use_raw)

    import pandas as pd

    var_names = adata.raw.var_names if use_raw else adata.var_names
    x = adata.raw.X if use_raw else get_matrix(adata, _OP, layer=layer)
    genes, pool = _present(pd, gene_list, gene_pool, var_names)
    ctx = make_context(x, op=_OP, device=device)
    packed = pack(x, _OP, blocks=True)
    generator = None
    if rng is not None:
        generator = np.random.default_rng(rng)
    elif random_state is not None:
        np.random.seed(settings.seed % 2**32 if random_state is DEFAULT_SEED else random_state)

    average = np.asarray(
        _averages(ctx, packed, x, pool) if not is_on_disk(packed.matrix) else _streamed_averages(packed.matrix)[pool]
    )
    chosen = list(_controls(average, genes, pool, var_names, ctrl_as_ref, ctrl_size, n_bins, generator))
    control = np.unique(np.concatenate([np.empty(0, np.int64), *chosen]))
    if len(control) == 0:
        advice = " Try setting `ctrl_as_ref=False`." if ctrl_as_ref else ""
        raise RuntimeError(f"{_OP}: No control genes found in any cut.{advice}")
    score = _core.tl.score_genes(ctx, packed.arg, genes.tolist(), control.tolist())
    return pd.Series(score, index=adata.obs_names, dtype="float64")


def _present(pd: Any, gene_list: Any, gene_pool: Any, var_names: Any) -> tuple[Any, Any]:
    """Positions in ``var_names`` of the listed genes and of the pool."""
    listed = pd.Index([gene_list] if isinstance(gene_list, str) else gene_list).unique()
    genes = var_names.get_indexer(listed)
    if (genes < 0).any():
        logger.warning("%s: genes are not in var_names and ignored: %s", _OP, list(listed[genes < 0]))
        genes = genes[genes >= 0]
    if len(genes) == 0:
        raise ValueError(f"{_OP}: No valid genes were passed for scoring.")
    if gene_pool is None:
        pool = np.arange(len(var_names))
    else:
        pool = var_names.get_indexer(pd.Index(gene_pool, dtype="string").intersection(var_names))
    if len(pool) == 0:
        raise ValueError(f"{_OP}: No valid genes were passed for reference set.")
    return genes, pool


def _averages(ctx: Any, packed: Any, x: Any, pool: Any) -> Any:
    """Mean of each pool gene over the cells, NaN left out.

    On the host by NumPy and SciPy in their own precision, like scanpy: its rounding decides bins, and so control genes.
    """
    if is_cupy(x):
        return _core.tl.nan_mean_of_genes(ctx, packed.arg)[pool]
    if not is_sparse(x):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # genes of NaN only are dropped later
            all_in_order = np.array_equal(pool, np.arange(x.shape[1]))  # then x is not copied
            return np.nanmean(x if all_in_order else x[:, pool], axis=0)
    missing = np.isnan(x.data)
    counts: Any = x.shape[0]
    if missing.any():
        holes = x.copy()
        holes.data = missing
        counts = counts - np.asarray(holes.sum(axis=0)).ravel()
        x = x.copy()
        x.data[missing] = 0
        x.eliminate_zeros()
    with np.errstate(invalid="ignore"):
        return (np.asarray(x.sum(axis=0, dtype="float64")).ravel() / counts)[pool]


def _streamed_averages(x: Any) -> Any:
    """The same of a matrix on disk, with the same rounding: a part begins with the sums of what comes before it."""
    import scipy.sparse as sp

    dtype = np.dtype(np.float64) if x.dtype.kind != "f" else x.dtype
    total, missing = np.zeros((1, x.shape[1]), dtype), np.zeros(x.shape[1], np.int64)
    for first, last in row_ranges(x):
        part = x[first:last]
        values = part.data if x.is_sparse else part
        holes = np.isnan(values)
        if holes.any():
            missing += np.bincount(part.indices[holes], minlength=x.shape[1]) if x.is_sparse else holes.sum(axis=0)
            values[holes] = 0
        if x.is_sparse:
            total = np.asarray(sp.vstack([sp.csr_matrix(total), part]).sum(axis=0))
        else:
            total = np.vstack([total, part.astype(dtype, copy=False)]).sum(axis=0, keepdims=True)
    with np.errstate(invalid="ignore"):
        counts = x.shape[0] - missing
        return total.ravel().astype(np.float64) / counts if x.is_sparse else (total.ravel() / counts).astype(dtype)


def _controls(
    average: Any,
    genes: Any,
    pool: Any,
    var_names: Any,
    ctrl_as_ref: bool,
    ctrl_size: int,
    n_bins: int,
    generator: Any,
) -> Iterator[Any]:
    """Control genes of every bin that holds a listed gene, drawn as scanpy does (``Series.sample``): positions."""
    finite = np.isfinite(average)
    average, pool = average[finite], pool[finite]
    n_items = int(np.round(len(average) / (n_bins - 1)))
    with np.errstate(divide="ignore"):
        bins = _first_rank(average) // n_items
    of_gene = np.full(len(var_names), np.nan)
    of_gene[pool] = bins
    outside = genes[np.isnan(of_gene[genes])]
    if len(outside):
        raise KeyError(f"{_OP}: listed genes without a mean, or not in gene_pool: {list(var_names[outside])}")
    listed = np.zeros(len(var_names), dtype=bool)
    listed[genes] = True
    candidate = None if ctrl_as_ref else ~listed[pool]
    for cut in np.unique(of_gene[genes]):
        in_cut = bins == cut
        chosen = pool[np.flatnonzero(in_cut if candidate is None else in_cut & candidate)]
        if len(chosen) == 0:
            logger.warning("%s: no control genes for cut=%s; a larger gene_pool may help", _OP, cut)
        if ctrl_size < len(chosen):
            draw = np.random if generator is None else generator.spawn(1)[0]
            chosen = chosen[draw.choice(len(chosen), size=ctrl_size, replace=False)]
        yield chosen[~listed[chosen]] if ctrl_as_ref else chosen


def _first_rank(x: Any) -> Any:
    """Rank from 1, as float64; equal numbers have the rank of the first of them: pandas' rank(method="min")."""
    order = np.argsort(x)
    ordered = x[order]
    first = np.arange(1, len(x) + 1)
    first[1:][ordered[1:] == ordered[:-1]] = 0
    ranks = np.empty(len(x))
    ranks[order] = np.maximum.accumulate(first)
    return ranks


def score_genes_cell_cycle(
    adata: AnnData,
    *,
    s_genes: Sequence[str],
    g2m_genes: Sequence[str],
    copy: bool = False,
    **kwargs: Any,
) -> AnnData | None:
    """Score the genes of S phase and of G2/M phase and name the phase of every cell.

    Parameters
    ----------
    adata
        As for :func:`score_genes`.
    s_genes, g2m_genes
        Genes of the phases; names that are not there are left out with a warning.
    copy
        Return a changed copy.
    kwargs
        Passed on to :func:`score_genes`, except ``ctrl_size``, which is the length of the shorter list.

    Notes
    -----
    Writes ``obs["S_score"]``, ``obs["G2M_score"]`` (float64) and ``obs["phase"]``: ``"S"``; ``"G2M"`` if its score is
    the larger; ``"G1"`` if both are negative.
    """
    require_anndata(adata, _OP)
    if "ctrl_size" in kwargs:
        raise TypeError("tl.score_genes_cell_cycle: ctrl_size is the length of the shorter gene list")
    if copy:
        adata = adata.copy()
    ctrl_size = min(len(s_genes), len(g2m_genes))
    s_score = _score(adata, s_genes, ctrl_size=ctrl_size, **kwargs)
    g2m_score = _score(adata, g2m_genes, ctrl_size=ctrl_size, **kwargs)

    import pandas as pd

    phase = pd.Series("S", index=adata.obs_names)
    phase[g2m_score > s_score] = "G2M"
    phase[(s_score < 0) & (g2m_score < 0)] = "G1"
    make_actual(adata, _OP)
    adata.obs["S_score"] = s_score
    adata.obs["G2M_score"] = g2m_score
    adata.obs["phase"] = phase
    return adata if copy else None
