"""Tables out of an AnnData: marker results, and values per cell or per gene. Pandas only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .._slots import get_matrix

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    import pandas as pd
    from anndata import AnnData


def rank_genes_groups_df(
    adata: AnnData,
    group: str | Iterable[str] | None,
    *,
    key: str = "rank_genes_groups",
    pval_cutoff: float | None = None,
    log2fc_min: float | None = None,
    log2fc_max: float | None = None,
    gene_symbols: str | None = None,
) -> pd.DataFrame:
    """The result of :func:`scwarp.tl.rank_genes_groups` as one table, in order of group and rank.

    Parameters
    ----------
    group
        A group, several, or ``None`` for all; with one group there is no column ``group``.
    pval_cutoff
        Keep adjusted p-values below.
    log2fc_min, log2fc_max
        Keep log2 fold changes strictly between.
    gene_symbols
        Column of ``var`` to add.

    Notes
    -----
    Of a filtered result (``tl.filter_rank_genes_groups``) that holds ``pts``, the genes that passed only, as in scanpy.
    """
    import pandas as pd

    if key not in adata.uns:
        raise KeyError(f"get.rank_genes_groups_df: no {key!r} in uns: run tl.rank_genes_groups first")
    result = adata.uns[key]
    groups = list(result["names"].dtype.names) if group is None else [group] if isinstance(group, str) else list(group)
    for g in groups:
        if g not in result["names"].dtype.names:
            raise KeyError(f"get.rank_genes_groups_df: no group {g!r} (there are: {result['names'].dtype.names})")
    logreg = result["params"]["method"] == "logreg"
    columns = ["names", "scores"] if logreg else ["names", "scores", "logfoldchanges", "pvals", "pvals_adj"]
    parts = []
    for g in groups:
        part = pd.DataFrame({c: result[c][g] for c in columns})
        part.insert(0, "group", g)
        for pts, name in (("pts", "pct_nz_group"), ("pts_rest", "pct_nz_reference")):
            if pts in result:
                _require_unique(result[pts].index, pts)
                part = part.dropna(subset="names")
                part[name] = result[pts][g].reindex(part["names"]).to_numpy()
        parts.append(part)
    table = pd.concat(parts, ignore_index=True)
    table["group"] = pd.Categorical(table["group"], categories=groups)
    if not logreg:
        if pval_cutoff is not None:
            table = table[table["pvals_adj"] < pval_cutoff]
        if log2fc_min is not None:
            table = table[table["logfoldchanges"] > log2fc_min]
        if log2fc_max is not None:
            table = table[table["logfoldchanges"] < log2fc_max]
    if gene_symbols is not None:
        _require_unique(adata.var_names, "gene_symbols")
        at = len(columns) + 1
        table.insert(at, gene_symbols, adata.var[gene_symbols].reindex(table["names"]).array)
    if len(groups) == 1:
        table = table.drop(columns="group")
    return table.reset_index(drop=True)


def _require_unique(names: pd.Index, what: str) -> None:
    if not names.is_unique:
        name = names[names.duplicated()][0]
        raise ValueError(
            f"get.rank_genes_groups_df: var_names are not unique (repeated: {name!r}), so that {what} cannot be "
            "looked up by name; run adata.var_names_make_unique() and tl.rank_genes_groups again"
        )


def obs_df(
    adata: AnnData,
    keys: str | Collection[str] = (),
    obsm_keys: Iterable[tuple[str, int]] = (),
    *,
    layer: str | None = None,
    gene_symbols: str | None = None,
    use_raw: bool = False,
) -> pd.DataFrame:
    """A value per cell for each key: a column of ``obs``, a gene (or its symbol), or a column of an ``obsm`` entry.

    Parameters
    ----------
    adata
        Of a matrix on disk only the columns asked for are kept.
    keys
        Columns of ``obs`` and genes; a name that is both is a ``KeyError``.
    obsm_keys
        Pairs of a key of ``obsm`` and a column of it; the frame's column is ``"key-column"``.
    layer
        Genes from this layer instead of ``X``.
    gene_symbols
        Column of ``var`` (of ``raw.var`` with ``use_raw``) in which genes are looked up instead of ``var_names``.
    use_raw
        Genes from ``adata.raw``.

    Returns
    -------
    A frame with ``obs_names`` as index and the keys as columns, in their order.
    """
    import pandas as pd

    op = "get.obs_df"
    if use_raw and layer is not None:
        raise ValueError(f"{op}: give layer or use_raw=True, not both")
    if use_raw and adata.raw is None:
        raise ValueError(f"{op}: use_raw=True, but adata.raw is empty")
    var = adata.raw.var if use_raw else adata.var
    symbols = None if gene_symbols is None else pd.Index(var[gene_symbols])
    matrix = adata.raw.X if use_raw else get_matrix(adata, op, layer=layer)
    table = _select(op, keys, adata.obs, var.index, symbols, matrix, 1)
    return _add_columns(op, table, adata.obsm, obsm_keys, "obsm")


def var_df(
    adata: AnnData,
    keys: str | Collection[str] = (),
    varm_keys: Iterable[tuple[str, int]] = (),
    *,
    layer: str | None = None,
) -> pd.DataFrame:
    """A value per gene for each key: a column of ``var``, a cell, or a column of a ``varm`` entry.

    Parameters
    ----------
    adata
        Of a matrix on disk only the rows asked for are read.
    keys
        Columns of ``var`` and cells; a name that is both is a ``KeyError``.
    varm_keys
        Pairs of a key of ``varm`` and a column of it; the frame's column is ``"key-column"``.
    layer
        Cells from this layer instead of ``X``.

    Returns
    -------
    A frame with ``var_names`` as index and the keys as columns, in their order.
    """
    op = "get.var_df"
    table = _select(op, keys, adata.var, adata.obs_names, None, get_matrix(adata, op, layer=layer), 0)
    return _add_columns(op, table, adata.varm, varm_keys, "varm")


def _select(op: str, keys: Any, frame: Any, names: Any, symbols: Any, matrix: Any, axis: int) -> Any:
    """The columns `keys` in this order: from `frame`, or from the matrix by name (or symbol) along `axis`."""
    import pandas as pd

    keys = [keys] if isinstance(keys, str) else list(keys)
    if not frame.columns.is_unique:
        repeated = frame.columns[frame.columns.duplicated()].tolist()
        raise ValueError(f"{op}: repeated columns {repeated}; rename or remove them first")
    if not names.is_unique:
        raise ValueError(f"{op}: repeated names in the index; make them unique first (names_make_unique)")
    lookup = names if symbols is None else symbols
    missing = [k for k in keys if k not in frame.columns and k not in lookup]
    if missing:
        raise KeyError(f"{op}: could not find keys {missing}")
    wanted = {}
    for k in dict.fromkeys(keys):
        if k in lookup:
            if k in frame.columns:
                raise KeyError(f"{op}: the key {k!r} is both a column and a name")
            at = np.flatnonzero(lookup == k)
            if len(at) != 1:
                raise KeyError(f"{op}: found {len(at)} entries for {k!r}")
            wanted[k] = int(at[0])
    table = pd.DataFrame(index=frame.index)
    parts = [table]
    if wanted:
        # In rising order, the only one in which h5py reads; then in that of the keys.
        where, order = np.unique(list(wanted.values()), return_inverse=True)
        values = matrix[:, where] if axis == 1 else matrix[where]
        values = values.toarray() if hasattr(values, "toarray") else np.asarray(values)
        values = values[:, order] if axis == 1 else values[order]
        parts.append(pd.DataFrame(values if axis == 1 else values.T, columns=list(wanted), index=frame.index))
    columns = [k for k in dict.fromkeys(keys) if k not in wanted]
    if columns:
        parts.append(frame[columns])
    table = pd.concat(parts, axis=1)
    return table[keys] if keys else table


def _add_columns(op: str, table: Any, source: Any, keys: Iterable[tuple[str, int]], what: str) -> Any:
    import pandas as pd

    for key, index in keys:
        if key not in source:
            raise KeyError(f"{op}: no {what} {key!r} (there are: {list(source)})")
        value = source[key]
        if isinstance(value, pd.DataFrame):
            table[f"{key}-{index}"] = value.loc[:, index]
        else:
            column = value[:, [index]]
            table[f"{key}-{index}"] = np.ravel(column.toarray() if hasattr(column, "toarray") else column)
    return table
