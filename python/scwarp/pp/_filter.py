from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .. import _core
from .._context import make_context
from .._matrix import pack, to_numpy
from .._settings import logger
from .._slots import flags_of, is_anndata, make_actual, refuse_backed, require_anndata
from .._subset import subset_inplace

if TYPE_CHECKING:
    from anndata import AnnData


def _one_threshold(op: str, thresholds: dict[str, float | None]) -> str:
    given = [name for name, value in thresholds.items() if value is not None]
    if len(given) != 1:
        raise ValueError(f"{op}: give exactly one of {', '.join(thresholds)} (got {', '.join(given) or 'none'})")
    return given[0]


def _numbers(op: str, counts: Any, x: Any, name: str, device: str | None) -> Any:
    ctx = make_context(x, op=op, device=device)
    total, n_positive = counts(ctx, pack(x, op, blocks=True).arg)
    if not name.endswith("_counts"):
        return to_numpy(n_positive).astype(np.int64)
    return to_numpy(total).astype(x.dtype.newbyteorder("=") if x.dtype.kind == "f" else np.int64)


def _keep(number: Any, name: str, threshold: float) -> Any:
    return number >= threshold if name.startswith("min_") else number <= threshold


def filter_cells(
    data: AnnData | Any,
    *,
    min_counts: float | None = None,
    min_genes: int | None = None,
    max_counts: float | None = None,
    max_genes: int | None = None,
    inplace: bool = True,
    copy: bool = False,
    verbose: bool = True,
    device: str | None = None,
) -> AnnData | tuple[Any, Any] | None:
    """Keep the cells with at least or at most so many counts or expressed genes (``x > 0``).

    Parameters
    ----------
    data
        AnnData, or a matrix of cells x genes: dense, CSR or CSC, on the host or in CuPy, or on disk.
    min_counts, max_counts
        Least and most counts of a cell.
    min_genes, max_genes
        Least and most expressed genes of a cell. Exactly one of the four thresholds per call.
    inplace
        Write ``obs["n_counts"]`` (dtype of the matrix, int64 for integers) or ``obs["n_genes"]`` (int64) and subset;
        ``False``: return what would be kept. A matrix is never changed.
    copy
        Return a filtered copy.
    verbose
        Say in the log how many cells were left out.
    device
        ``"cpu"`` or ``"cuda"``; default where the data are, else ``settings.device``.

    Returns
    -------
    ``None``, the copy, or (a matrix, ``inplace=False``) ``(keep: bool[n_obs], number: array[n_obs])``. Same bits on CPU
    and CUDA (tier A).
    """
    op = "pp.filter_cells"
    thresholds = {
        "min_counts": min_counts,
        "min_genes": min_genes,
        "max_counts": max_counts,
        "max_genes": max_genes,
    }
    name = _one_threshold(op, thresholds)
    if is_anndata(data) and (inplace or copy):
        refuse_backed(data, op)
    if is_anndata(data) and copy:
        data = data.copy()
    x = data.X if is_anndata(data) else data
    number = _numbers(op, _core.pp.cell_counts, x, name, device)
    keep = _keep(number, name, thresholds[name])  # type: ignore[arg-type]
    if not is_anndata(data) or not inplace:
        return keep, number
    if verbose and not keep.all():
        logger.info("%s: dropped %d cells that have %s", op, int((~keep).sum()), _reason(name, thresholds[name]))
    make_actual(data, op)
    data.obs["n_counts" if name.endswith("counts") else "n_genes"] = number
    subset_inplace(data, op, cells=keep)
    return data if copy else None


def filter_genes(
    data: AnnData | Any,
    *,
    min_counts: float | None = None,
    min_cells: int | None = None,
    max_counts: float | None = None,
    max_cells: int | None = None,
    inplace: bool = True,
    copy: bool = False,
    verbose: bool = True,
    device: str | None = None,
) -> AnnData | tuple[Any, Any] | None:
    """Keep the genes with at least or at most so many counts or cells that express them (``x > 0``).

    Parameters
    ----------
    data
        AnnData, or a matrix of cells x genes: dense, CSR or CSC, on the host or in CuPy, or on disk.
    min_counts, max_counts
        Least and most counts of a gene.
    min_cells, max_cells
        Least and most cells that express a gene. Exactly one of the four thresholds per call.
    inplace
        Write ``var["n_counts"]`` (dtype of the matrix, int64 for integers) or ``var["n_cells"]`` (int64) and subset;
        ``False``: return what would be kept. A matrix is never changed.
    copy
        Return a filtered copy.
    verbose
        Say in the log how many genes were left out.
    device
        ``"cpu"`` or ``"cuda"``; default where the data are, else ``settings.device``.

    Returns
    -------
    ``None``, the copy, or (a matrix, ``inplace=False``) ``(keep: bool[n_vars], number: array[n_vars])``. Same bits on
    CPU and CUDA (tier A).
    """
    op = "pp.filter_genes"
    thresholds = {
        "min_counts": min_counts,
        "min_cells": min_cells,
        "max_counts": max_counts,
        "max_cells": max_cells,
    }
    name = _one_threshold(op, thresholds)
    if is_anndata(data) and (inplace or copy):
        refuse_backed(data, op)
    if is_anndata(data) and copy:
        data = data.copy()
    x = data.X if is_anndata(data) else data
    number = _numbers(op, _core.pp.gene_counts, x, name, device)
    keep = _keep(number, name, thresholds[name])  # type: ignore[arg-type]
    if not is_anndata(data) or not inplace:
        return keep, number
    if verbose and not keep.all():
        logger.info("%s: dropped %d genes that have %s", op, int((~keep).sum()), _reason(name, thresholds[name]))
    make_actual(data, op)
    data.var["n_counts" if name.endswith("counts") else "n_cells"] = number
    subset_inplace(data, op, genes=keep)
    return data if copy else None


def _reason(name: str, threshold: float | None) -> str:
    bound, what = name.split("_")
    return f"{'less' if bound == 'min' else 'more'} than {threshold} {what}"


def filter_highly_variable(adata: AnnData) -> None:
    """Subset the genes in place to ``var["highly_variable"]``; without that column, a warning and nothing else.

    The column: booleans without missing values, or the integers 0 and 1.
    """
    op = "pp.filter_highly_variable"
    require_anndata(adata, op)
    if "highly_variable" not in adata.var.columns:
        logger.warning("%s: no column 'highly_variable' in var: run pp.highly_variable_genes first", op)
        return
    refuse_backed(adata, op)
    genes = flags_of(adata.var["highly_variable"], op, "var['highly_variable']")
    make_actual(adata, op)
    subset_inplace(adata, op, genes=genes)


def flag_gene_family(
    adata: AnnData,
    *,
    gene_family_name: str,
    gene_family_prefix: str | None = None,
    gene_list: list[str] | None = None,
) -> None:
    """Write ``var[gene_family_name]`` (bool): names that start with a prefix, or are in a list.

    Parameters
    ----------
    adata
        Its ``var_names`` are looked at.
    gene_family_name
        The column, for example ``"mt"`` (see ``qc_vars`` of :func:`calculate_qc_metrics`).
    gene_family_prefix
        Start of the names, case-sensitive.
    gene_list
        The names; decides if both are given.
    """
    op = "pp.flag_gene_family"
    require_anndata(adata, op)
    if gene_family_prefix is None and gene_list is None:
        raise ValueError(f"{op}: give gene_family_prefix or gene_list")
    if gene_list is not None:
        flags = adata.var_names.isin(gene_list)
    else:
        flags = adata.var_names.str.startswith(gene_family_prefix)
    adata.var[gene_family_name] = np.asarray(flags, dtype=bool)
