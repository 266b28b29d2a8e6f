from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from .. import _core
from .._context import make_context
from .._matrix import is_sparse, pack
from .._settings import logger
from .._slots import check_copy_inplace, get_matrix, make_actual, require_anndata, set_matrix

if TYPE_CHECKING:
    from anndata import AnnData

_OP = "pp.normalize_pearson_residuals"


def normalize_pearson_residuals(
    adata: AnnData,
    *,
    theta: float = 100,
    clip: float | None = None,
    check_values: bool = True,
    layer: str | None = None,
    obsm: str | None = None,
    inplace: bool = True,
    copy: bool = False,
    device: str | None = None,
) -> AnnData | dict[str, Any] | None:
    """Replace counts by the Pearson residuals of a negative binomial model of cell and gene totals.

    Parameters
    ----------
    adata
        ``X`` (or ``layer``, ``obsm``): counts; dense, CSR or CSC. The result is dense.
    theta
        Overdispersion, shared by all genes; infinity for the Poisson model.
    clip
        Limit of the residuals; ``None``: the square root of the number of cells.
    check_values
        Warn if the values are not counts.
    layer, obsm
        What to transform instead of ``X``.
    inplace
        ``False``: return ``{"X": residuals, "theta", "clip", "computed_on"}`` and leave ``adata`` alone.
    copy
        Return a changed copy.
    device
        ``"cpu"`` or ``"cuda"``; default where the data are, else ``settings.device``.

    Notes
    -----
    Writes ``uns["pearson_residuals_normalization"]``. Cells and genes without counts become NaN. The result has the
    float type of the input. Same bits for any number of threads (tier A).
    """
    check_copy_inplace(_OP, copy, inplace)
    require_anndata(adata, _OP)
    if copy:
        adata = adata.copy()
    source = get_matrix(adata, _OP, layer=layer, obsm=obsm)
    ctx = make_context(source, op=_OP, device=device)
    if is_sparse(source):
        logger.info("%s: the sparse matrix becomes dense", _OP)
    result, counts = _core.pp.normalize_pearson_residuals(
        ctx, pack(source, _OP).arg, float(theta), None if clip is None else float(clip)
    )
    if check_values and not counts:
        warnings.warn(
            "`normalize_pearson_residuals()` expects raw count data, but non-integers were found.",
            UserWarning,
            stacklevel=2,
        )
    settings = {"theta": theta, "clip": clip, "computed_on": layer or obsm or "adata.X"}
    if not inplace:
        return {"X": result, **settings}
    make_actual(adata, _OP)
    set_matrix(adata, result, layer=layer, obsm=obsm)
    adata.uns["pearson_residuals_normalization"] = settings
    return adata if copy else None
