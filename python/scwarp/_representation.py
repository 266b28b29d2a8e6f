"""Which array a neighbour search reads: X, the stored PCA, or an entry of obsm."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._settings import logger, settings

if TYPE_CHECKING:
    from anndata import AnnData


def _first_columns(x: Any, n_pcs: int | None, name: str, op: str) -> Any:
    if hasattr(x, "iloc"):  # a data frame
        x = x.to_numpy()
    if n_pcs is None:
        return x
    if n_pcs > x.shape[1]:
        raise ValueError(f"{op}: obsm[{name!r}] has {x.shape[1]} columns, n_pcs={n_pcs} were asked for")
    return x[:, :n_pcs]


def choose_representation(adata: AnnData, op: str, *, use_rep: str | None = None, n_pcs: int | None = None) -> Any:
    """scanpy's rules: ``use_rep`` if given; ``X`` if ``n_pcs=0`` or it has at most ``settings.N_PCS`` columns; else the
    stored PCA, which is computed and written if there is none."""
    if n_pcs is not None and n_pcs < 0:
        raise ValueError(f"{op}: n_pcs must not be negative (got {n_pcs})")
    if use_rep is None and n_pcs == 0:
        use_rep = "X"
    if use_rep is None:
        if adata.X is not None and adata.n_vars <= settings.N_PCS:
            return adata.X
        for name in ("X_pca", "pca"):
            if name in adata.obsm:
                return _first_columns(adata.obsm[name], n_pcs, name, op)
        if adata.X is None:
            raise ValueError(f"{op}: there is neither X nor a stored PCA; give use_rep")
        from . import pp

        logger.warning(
            "%s: no stored PCA and %d variables: running pp.pca first (use_rep='X' searches X itself)", op, adata.n_vars
        )
        pp.pca(adata, n_comps=n_pcs)
        return adata.obsm["X_pca"]
    if use_rep in adata.obsm:
        return _first_columns(adata.obsm[use_rep], n_pcs, use_rep, op)
    if use_rep == "X":
        if adata.X is None:
            raise ValueError(f"{op}: use_rep='X', but X is None")
        return adata.X
    raise ValueError(f"{op}: use_rep={use_rep!r} is neither in obsm nor 'X' (there are: {list(adata.obsm)})")
