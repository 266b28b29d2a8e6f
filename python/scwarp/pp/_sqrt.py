from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .. import _core
from .._context import make_context
from .._matrix import pack
from .._on_disk import is_on_disk
from .._slots import check_copy_inplace, get_matrix, is_anndata, make_actual, set_matrix

if TYPE_CHECKING:
    from anndata import AnnData

_OP = "pp.sqrt"


def sqrt(
    data: AnnData | Any,
    *,
    copy: bool = False,
    chunked: bool = False,
    chunk_size: int | None = None,
    layer: str | None = None,
    obsm: str | None = None,
    inplace: bool = True,
    device: str | None = None,
) -> AnnData | Any | None:
    """Square root of every value.

    Parameters
    ----------
    data
        AnnData, or a matrix (then the result is returned). Integers become float64. The result is a new matrix, as in
        scanpy: what else refers to the old one (a layer, say) keeps its values.
    copy
        Return a changed copy of an AnnData.
    chunked, chunk_size
        Accepted for scanpy's sake: the work is always done in blocks.
    layer, obsm
        What to transform instead of ``X``.
    inplace
        ``False``: return the transformed matrix and leave ``data`` alone.
    device
        ``"cpu"`` or ``"cuda"``; default where the data are, else ``settings.device``.

    Notes
    -----
    Negative values become NaN. Same bits on CPU and CUDA (tier A). Memory: the result, beside the matrix.
    """
    check_copy_inplace(_OP, copy, inplace)
    if not is_anndata(data):
        if layer is not None or obsm is not None:
            raise ValueError(f"{_OP}: layer and obsm need an AnnData (got {type(data).__name__})")
        return _transform(data, device)
    adata = data.copy() if copy else data
    source = get_matrix(adata, _OP, layer=layer, obsm=obsm)
    if not inplace:
        return _transform(source, device)
    own = copy or adata.is_view  # a copy has just been made
    if adata.is_view:
        make_actual(adata, _OP)
        source = get_matrix(adata, _OP, layer=layer, obsm=obsm)
    set_matrix(adata, _transform(source, device, fresh=not own), layer=layer, obsm=obsm)
    return adata if copy else None


def _transform(x: Any, device: str | None, *, fresh: bool = True) -> Any:
    ctx = make_context(x, op=_OP, device=device)
    if is_on_disk(x):
        return x.then("sqrt", int_dtype="float64")
    packed = pack(x, _OP, mutable=True, fresh=fresh, int_dtype="float64")
    _core.pp.sqrt(ctx, packed.arg)
    return packed.result()
