from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .. import _core
from .._context import make_context
from .._matrix import check_matrix, pack
from .._on_disk import is_on_disk
from .._settings import logger
from .._slots import check_copy_inplace, get_matrix, is_anndata, make_actual, set_matrix

if TYPE_CHECKING:
    from anndata import AnnData

_OP = "pp.log1p"


def log1p(
    data: AnnData | Any,
    *,
    base: float | None = None,
    copy: bool = False,
    chunked: bool | None = None,
    chunk_size: int | None = None,
    layer: str | None = None,
    obsm: str | None = None,
    inplace: bool = True,
    device: str | None = None,
) -> AnnData | Any | None:
    """``ln(1 + x)``, divided by ``ln(base)`` when a base is given.

    Parameters
    ----------
    data
        AnnData, or a matrix (then the result is returned; the matrix itself is left alone). Integers become float64, as
        in scanpy.
    base
        Base of the logarithm; ``None``: e.
    copy
        Return a changed copy of an AnnData.
    chunked, chunk_size
        Accepted for scanpy's sake: the work is always done in blocks, in place.
    layer, obsm
        What to transform instead of ``X``.
    inplace
        ``False``: return the transformed matrix and leave ``data`` alone.
    device
        ``"cpu"`` or ``"cuda"``; default where the data are, else ``settings.device``.

    Notes
    -----
    Writes ``uns["log1p"] = {"base": base}``. Same bits on CPU and CUDA (tier A).
    """
    check_copy_inplace(_OP, copy, inplace)
    if not is_anndata(data):
        if layer is not None or obsm is not None:
            raise ValueError(f"{_OP}: layer and obsm need an AnnData (got {type(data).__name__})")
        return _transform(data.copy() if hasattr(data, "copy") else data, base, device)
    adata = data.copy() if copy else data
    if not inplace:
        return _transform(get_matrix(adata, _OP, layer=layer, obsm=obsm).copy(), base, device)
    if "log1p" in adata.uns:
        logger.warning("%s: the data seem to be logarithmised already (uns['log1p'] exists)", _OP)
    if adata.is_view:  # what is wrong is said before the view becomes a copy
        check_matrix(get_matrix(adata, _OP, layer=layer, obsm=obsm), _OP)
        _core.pp.log1p(make_context(op=_OP, device="cpu"), np.empty((0, 0), np.float32), base)
    make_actual(adata, _OP)
    set_matrix(adata, _transform(get_matrix(adata, _OP, layer=layer, obsm=obsm), base, device), layer=layer, obsm=obsm)
    adata.uns["log1p"] = {"base": base}
    return adata if copy else None


def _transform(x: Any, base: float | None, device: str | None) -> Any:
    ctx = make_context(x, op=_OP, device=device)
    if is_on_disk(x):
        _core.pp.log1p(ctx, np.empty((0, 0), np.float32), base)  # checks
        return x.then("log1p", base, int_dtype="float64")
    packed = pack(x, _OP, mutable=True, int_dtype="float64")
    _core.pp.log1p(ctx, packed.arg, base)
    return packed.result()
