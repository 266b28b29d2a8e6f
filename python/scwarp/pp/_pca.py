from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import _core
from .._context import _UNSET, DEFAULT_SEED, make_context, require_integer, resolve_seed, to_host
from .._matrix import is_sparse, pack
from .._settings import settings
from .._slots import boolean_mask, get_matrix, is_anndata, make_actual
from ._regress_out import noted_residuals
from ._scale import noted_scale

if TYPE_CHECKING:
    from anndata import AnnData

_OP = "pp.pca"
# All of them are answered by the same two exact algorithms; these may ask for every component there is.
_WHOLE = ("auto", "full", "covariance_eigh", "randomized", "jacobi")
_SOLVERS = (None, *_WHOLE, "arpack", "lanczos", "lobpcg", "tsqr")


def pca(
    data: AnnData | Any,
    n_comps: int | None = None,
    *,
    layer: str | None = None,
    obsm: str | None = None,
    zero_center: bool = True,
    svd_solver: str | None = None,
    chunked: bool = False,
    chunk_size: int | None = None,
    random_state: Any = DEFAULT_SEED,
    rng: Any = _UNSET,
    return_info: bool = False,
    mask_var: Any = _UNSET,
    use_highly_variable: bool | None = None,
    dtype: Any = "float32",
    key_added: str | None = None,
    copy: bool = False,
    scale: bool = False,
    max_value: float | None = None,
    device: str | None = None,
    **kwargs: Any,
) -> AnnData | Any | None:
    """Principal components.

    Parameters
    ----------
    data
        AnnData, or a matrix (cells x genes; then the scores are returned). Dense, CSR or CSC; integers become float64.
        Sparse matrices are centred implicitly and stay sparse.
    n_comps
        ``None``: ``settings.N_PCS`` (50), or one less than the smaller side if that is not larger.
    layer, obsm
        What to decompose instead of ``X``. With ``obsm`` the loadings go to ``uns[...]["components"]``.
    zero_center
        ``False``: truncated SVD of the matrix as it is; ``variance`` is then that of the scores with ddof 0.
    svd_solver
        Any of scanpy's and rapids-singlecell's names, or ``None``. All give the exact components: the covariance matrix
        and block Lanczos up to 6000 genes in use, block Lanczos on the matrix above.
    chunked, chunk_size
        Accepted for scanpy's sake: always centred, exact, with the same bits as without. A matrix on disk is read in
        blocks anyway (``settings.block_bytes``); one that is stored by columns (CSC) needs ``chunked``.
    random_state, rng
        Seed of the starting block (default ``settings.seed``); the result depends on it by rounding only.
    return_info
        For a matrix: return ``(scores, components [k x genes], variance_ratio, variance)``.
    mask_var
        Genes to use: a column of ``var`` or a boolean array. Default: ``"highly_variable"`` if that column exists,
        ``None`` uses all.
    use_highly_variable
        Deprecated: ``True`` is ``mask_var="highly_variable"``, ``False`` is ``mask_var=None``.
    dtype
        Of the scores.
    key_added
        Name of the entries in ``obsm``, ``varm`` and ``uns`` instead of ``X_pca``, ``PCs`` and ``pca``.
    copy
        Return a changed copy of an AnnData.
    scale, max_value
        Decompose ``clip((x - mean) / std, -max_value, max_value)`` (what ``scale`` computes) without making it. After
        ``scale(lazy=True)`` this is the default; after ``regress_out(lazy=True)`` x is what that leaves.
    device
        ``"cpu"`` or ``"cuda"``; default where the data are, else ``settings.device``.
    **kwargs
        ``n_oversamples`` and ``n_iter`` of the randomized solver: accepted, without effect.

    Writes
    ------
    ``obsm["X_pca"]`` (cells x k), ``varm["PCs"]`` (genes x k; zero outside the mask), ``uns["pca"]`` with ``params``,
    ``variance`` and ``variance_ratio``. The largest entry of each component is positive.
    """
    unknown = set(kwargs) - {"n_oversamples", "n_iter"}
    if unknown:
        raise TypeError(f"{_OP}: unknown arguments {sorted(unknown)}")
    if svd_solver not in _SOLVERS:
        raise ValueError(f"{_OP}: svd_solver={svd_solver!r} is unknown (there are: {[s for s in _SOLVERS if s]})")
    if chunked and (layer is not None or obsm is not None):
        raise NotImplementedError(f"{_OP}: chunked works on X only (got layer={layer!r}, obsm={obsm!r})")
    if chunked and (chunk_size is None or int(chunk_size) < 1):
        raise ValueError(f"{_OP}: chunked needs a positive chunk_size (got {chunk_size})")
    whole = is_anndata(data)
    if not whole and (layer is not None or obsm is not None):
        raise ValueError(f"{_OP}: layer and obsm need an AnnData (got {type(data).__name__})")
    adata = data.copy() if whole and copy else data
    x = get_matrix(adata, _OP, layer=layer, obsm=obsm) if whole else data
    if x is None:
        raise ValueError(f"{_OP}: X is None")
    if obsm is not None and hasattr(x, "to_numpy"):
        x = x.to_numpy()
    if whole and obsm is None and not scale and (note := noted_scale(adata, layer)) is not None:
        scale, max_value = True, note.get("max_value") if max_value is None else max_value
    backed = whole and adata.isbacked and layer is None and obsm is None
    by_columns = backed and getattr(x, "format", "csr") == "csc"  # its rows come from anndata, slowly
    if by_columns and not chunked:
        raise NotImplementedError(
            f"{_OP}: X is on disk (backed) by columns: use chunked=True, or load it with adata.to_memory()"
        )

    n, m = x.shape
    params, mask = _gene_mask(adata if whole and obsm is None else None, m, mask_var, use_highly_variable)
    used = m if mask is None else int(mask.sum())
    smaller = min(n, used)
    if n_comps is None:
        n_comps = smaller - 1 if smaller <= settings.N_PCS else settings.N_PCS
    n_comps = require_integer(_OP, "n_comps", n_comps)
    centre = bool(zero_center) or bool(chunked)
    all_of_them = n_comps == smaller and (svd_solver in _WHOLE or not centre or chunked)
    most = smaller if all_of_them else smaller - 1
    if not 1 <= n_comps <= most:
        raise ValueError(
            f"{_OP}: n_comps must be between 1 and {most} for {n} cells and {used} genes in use (got {n_comps})"
        )
    dtype = np.dtype(dtype)
    ctx = make_context(None if by_columns else x, op=_OP, device=device, seed=resolve_seed(_OP, random_state, rng))
    if by_columns:
        arg, precise = _blocks(adata, int(chunk_size or 1))
    else:
        packed = pack(x, _OP, int_dtype="float64", blocks=True)
        arg, precise = packed.arg, packed.dtype == np.float64
    residuals = noted_residuals(adata, layer, _OP) if whole and obsm is None else None
    if residuals is not None:  # of the genes in use alone
        arg = residuals(arg, mask)
    r = _core.pp.pca(
        ctx,
        arg,
        n_comps,
        centre,
        None if mask is None or residuals is not None else np.ascontiguousarray(mask).view(np.uint8),
        bool(scale),
        None if max_value is None else float(max_value),
        all_of_them,
        dtype != np.float32,
    )
    scores = r["scores"] if r["scores"].dtype == dtype else r["scores"].astype(dtype)
    kind = np.float64 if precise or chunked else np.float32  # as scikit-learn's estimators return them
    components, variance, ratio = (
        r[key].astype(kind, copy=False) for key in ("components", "variance", "variance_ratio")
    )
    if not whole:
        return (scores, np.ascontiguousarray(components.T), ratio, variance) if return_info else scores

    key_obsm, key_varm, key_uns = ("X_pca", "PCs", "pca") if key_added is None else (key_added,) * 3
    entry: dict[str, Any] = {"params": {"zero_center": zero_center, **params}}
    if layer is not None:
        entry["params"]["layer"] = layer
    if obsm is not None:
        entry["params"]["obsm"] = obsm
    if scale:
        entry["params"]["scale"] = True
        if max_value is not None:
            entry["params"]["max_value"] = float(max_value)
    entry |= {"variance": variance, "variance_ratio": ratio}
    if mask is not None:
        full = np.zeros((m, n_comps))
        full[mask] = components
        components = full
    make_actual(adata, _OP)
    adata.obsm[key_obsm] = to_host(scores)
    if obsm is None:
        adata.varm[key_varm] = components
    else:
        entry["components"] = components
    adata.uns[key_uns] = entry
    return adata if copy else None


def _gene_mask(adata: AnnData | None, m: int, mask_var: Any, use_highly_variable: bool | None) -> tuple[Any, Any]:
    """(entries of ``params``, bool mask or None), with scanpy's rules."""
    if use_highly_variable is not None:
        hint = "use mask_var='highly_variable' for True, mask_var=None for False"
        warnings.warn(f"{_OP}: use_highly_variable is deprecated: {hint}", FutureWarning, stacklevel=3)
        if mask_var is not _UNSET:
            raise ValueError(f"{_OP}: give mask_var or use_highly_variable, not both; {hint}")
        mask_var = "highly_variable" if use_highly_variable else None
    if mask_var is _UNSET:
        mask_var = "highly_variable" if adata is not None and "highly_variable" in adata.var.columns else None
    if isinstance(mask_var, str) and adata is None:
        raise ValueError(f"{_OP}: mask_var={mask_var!r} names a column of var: give a boolean array here")
    mask = boolean_mask(mask_var, None if adata is None else adata.var, m, _OP, "mask_var")
    named = mask_var if isinstance(mask_var, str) else mask
    return {"use_highly_variable": isinstance(mask_var, str) and mask_var == "highly_variable", "mask_var": named}, mask


def _blocks(adata: AnnData, chunk_size: int) -> tuple[Any, bool]:
    """The rows of a backed X as the C++ side takes them, and whether they are float64."""
    first = adata.X[:1]
    sparse, dtype = is_sparse(first), np.dtype(first.dtype)
    double = dtype not in (np.float32, np.float16)

    def open_blocks() -> Iterator[Any]:
        for block, _, _ in adata.chunked_X(chunk_size):
            values = block if not double else block.astype(np.float64)
            yield pack(values, _OP, int_dtype="float64").arg

    return (adata.n_obs, adata.n_vars, sparse, double, open_blocks), double
