from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import _core
from .._context import is_cupy, make_context
from .._matrix import is_sparse, pack, to_numpy
from .._slots import flags_of, get_matrix, make_actual, require_anndata

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

_OP = "pp.calculate_qc_metrics"


def calculate_qc_metrics(
    adata: AnnData,
    *,
    expr_type: str = "counts",
    var_type: str = "genes",
    qc_vars: Collection[str] | str | None = (),
    percent_top: Collection[int] | None = (50, 100, 200, 500),
    layer: str | None = None,
    use_raw: bool = False,
    inplace: bool = False,
    log1p: bool = True,
    parallel: bool | None = None,
    device: str | None = None,
) -> tuple[pd.DataFrame, pd.DataFrame] | None:
    """Quality-control metrics per cell and per gene.

    Parameters
    ----------
    adata
        Counts in ``X`` or ``layer``, or in ``raw`` with ``use_raw``.
    expr_type, var_type
        Words in the column names.
    qc_vars
        Columns of ``var`` that flag genes (families such as ``"mt"``): their total and percentage per cell. Booleans
        without missing values, or the integers 0 and 1.
    percent_top
        For each N, the percentage of counts in the N largest genes of a cell; ``None`` or empty: none.
    layer, use_raw
        Read this layer, or ``adata.raw``, instead of ``X``.
    inplace
        Add the columns to ``obs`` and ``var`` instead of returning two frames. With ``use_raw`` and other genes in
        ``raw`` than in ``var`` (which scanpy does not take), ``raw.var`` stands for ``var`` here and in ``qc_vars``.
    log1p
        Add ``log1p_`` columns.
    parallel
        Accepted for scanpy's sake; see ``settings.n_threads``.
    device
        ``"cpu"`` or ``"cuda"``; default where the data are, else ``settings.device``.

    Returns
    -------
    ``(obs frame, var frame)``, or ``None`` with ``inplace=True``. Columns as in scanpy: ``n_genes_by_counts`` (int32),
    ``total_counts`` (dtype of the matrix), ``pct_counts_in_top_50_genes``, ``total_counts_mt``, ``pct_counts_mt``;
    ``n_cells_by_counts`` (int64), ``mean_counts`` (float64),
    ``pct_dropout_by_counts``, ``total_counts``. Explicit zeros are not counted.
    """
    import pandas as pd

    require_anndata(adata, _OP)
    if use_raw and layer is not None:
        raise ValueError(f"{_OP}: give use_raw or layer, not both")
    if use_raw and adata.raw is None:
        raise ValueError(f"{_OP}: use_raw=True, but there is no raw")
    source: Any = adata.raw.X if use_raw else get_matrix(adata, _OP, layer=layer)
    genes_of_raw = use_raw and not adata.raw.var_names.equals(adata.var_names)
    var = adata.raw.var if genes_of_raw else adata.var
    families = [qc_vars] if isinstance(qc_vars, str) else list(qc_vars or ())
    flags = []
    for q in families:
        if q not in var.columns:
            raise KeyError(f"{_OP}: qc_vars: no column {q!r} in var (there are: {list(var.columns)})")
        flags.append(np.ascontiguousarray(flags_of(var[q], _OP, f"var[{q!r}]")).view(np.uint8))
    tops = sorted(int(n) for n in (percent_top or ()))
    if tops and (tops[0] < 1 or tops[-1] > source.shape[1]):
        raise IndexError(f"{_OP}: percent_top must be from 1 to the number of genes, {source.shape[1]} (got {tops})")
    ctx = make_context(source, op=_OP, device=device)
    x = pack(source, _OP, blocks=True)
    if is_cupy(source):
        import cupy

        flags = [cupy.asarray(f) for f in flags]
    # CuPy arrays for a matrix on the GPU: the columns of the cells are finished there.
    n_genes, total, family_total, pct_top, n_cells, gene_total = _core.pp.calculate_qc_metrics(ctx, x.arg, flags, tops)
    n_cells, gene_total = to_numpy(n_cells), to_numpy(gene_total)

    sum_type: Any = np.dtype(np.int64)
    if source.dtype.kind == "f" or not is_sparse(source):
        sum_type = source.dtype.newbyteorder("=")
    if source.dtype.kind in "iub":
        sum_type = np.dtype(np.uint64 if source.dtype.kind == "u" else np.int64)
    e, v = expr_type, var_type
    obs: dict[str, Any] = {f"n_{v}_by_{e}": n_genes}
    if log1p:
        obs[f"log1p_n_{v}_by_{e}"] = _log1p(n_genes)
    obs[f"total_{e}"] = total.astype(sum_type)
    if log1p:
        obs[f"log1p_total_{e}"] = _log1p(obs[f"total_{e}"])
    for n, pct in zip(tops, pct_top, strict=True):
        obs[f"pct_{e}_in_top_{n}_{v}"] = pct
    for q, t in zip(families, family_total, strict=True):
        obs[f"total_{e}_{q}"] = t.astype(sum_type)
        if log1p:
            obs[f"log1p_total_{e}_{q}"] = _log1p(obs[f"total_{e}_{q}"])
        with np.errstate(divide="ignore", invalid="ignore"):
            obs[f"pct_{e}_{q}"] = obs[f"total_{e}_{q}"] / obs[f"total_{e}"] * 100
    genes: dict[str, Any] = {f"n_cells_by_{e}": n_cells.astype(np.int64)}
    with np.errstate(divide="ignore", invalid="ignore"):
        genes[f"mean_{e}"] = gene_total / x.shape[0]
        if log1p:
            genes[f"log1p_mean_{e}"] = _log1p(genes[f"mean_{e}"])
        genes[f"pct_dropout_by_{e}"] = (1 - n_cells / x.shape[0]) * 100
    genes[f"total_{e}"] = gene_total.astype(sum_type)
    if log1p:
        genes[f"log1p_total_{e}"] = _log1p(genes[f"total_{e}"])

    if not inplace:
        obs = {name: to_numpy(values) for name, values in obs.items()}
        # The columns are ours: as they are, not copied into one block per type.
        return pd.DataFrame(obs, index=adata.obs_names, copy=False), pd.DataFrame(genes, index=var.index, copy=False)
    make_actual(adata, _OP)
    target = adata.raw.var if genes_of_raw else adata.var
    for name in list(obs):  # one at a time, so that the memory of one column on the host serves the next
        adata.obs[name] = to_numpy(obs.pop(name))
    for name, values in genes.items():
        target[name] = values
    return None


def _log1p(values: Any) -> Any:
    """Our own logarithm, which has the same bits on every machine, in float32 for float32 and else in float64."""
    dtype = np.float32 if values.dtype == np.float32 else np.float64
    if is_cupy(values):
        out = values.astype(dtype).reshape(-1, 1)  # kernels go by rows
        _core.pp.log1p(make_context(out, op=_OP), out, None)
        return out.ravel()
    out = np.array(values, dtype=dtype).reshape(1, -1)
    _core.pp.log1p(make_context(op=_OP, device="cpu"), out, None)
    return out[0]
