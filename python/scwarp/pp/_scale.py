from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import _core
from .._context import is_cupy, make_context
from .._matrix import check_matrix, is_sparse, pack, to_numpy
from .._settings import logger
from .._slots import boolean_mask, check_copy_inplace, get_matrix, is_anndata, make_actual, set_matrix
from ._regress_out import noted_residuals

if TYPE_CHECKING:
    from anndata import AnnData

_OP = "pp.scale"


def scale(
    data: AnnData | Any,
    *,
    zero_center: bool = True,
    max_value: float | None = None,
    copy: bool = False,
    layer: str | None = None,
    obsm: str | None = None,
    mask_obs: Any = None,
    inplace: bool = True,
    lazy: bool = False,
    device: str | None = None,
) -> AnnData | Any | None:
    """Scale every gene to mean 0 and variance 1: ``(x - mean) / std``.

    Parameters
    ----------
    data
        AnnData, or a matrix, which is returned scaled: in its own buffer where that is a float matrix (dense, or sparse
        with ``zero_center=False``), unless ``copy=True`` or ``inplace=False``.
    zero_center
        ``False``: only divide by the standard deviation, which keeps a sparse matrix sparse. ``True`` makes a sparse
        matrix dense.
    max_value
        Clip afterwards: to ±``max_value`` with ``zero_center``, else only above.
    copy
        Return a changed copy.
    layer, obsm
        What to scale instead of ``X``.
    mask_obs
        Boolean array, or name of a boolean column of ``obs``: only these cells take part in the mean and the standard
        deviation, and only they are changed.
    inplace
        ``False``: return the scaled matrix and leave ``data`` alone.
    lazy
        Leave ``X`` (or ``layer``) as it is, sparse or dense, and note in ``uns["scale"]`` what to do: ``pca`` then
        decomposes the scaled values without ever making them (scores within 1e-5 of the largest). Means and standard
        deviations are those of the cells that ``pca`` sees. For an AnnData, with ``zero_center`` and without
        ``mask_obs`` and ``obsm``; other functions than ``pca`` read ``X`` as it is.
    device
        ``"cpu"`` or ``"cuda"``; default where the data are, else ``settings.device``.

    Notes
    -----
    Writes ``var["mean"]`` and ``var["std"]`` (float64; not for ``obsm``); with a mask ``"mean of {mask_obs}"`` and
    ``"std of {mask_obs}"``, or ``"mean with mask"`` and ``"std with mask"`` for an array. Genes without
    variance become 0. Integers become float64. Same bits for any number of threads (tier A).
    """
    if lazy:
        unfit = {
            "a bare matrix": not is_anndata(data),
            "zero_center=False": not zero_center,
            "mask_obs": mask_obs is not None,
            "obsm": obsm is not None,
            "inplace=False": not inplace,
        }
        if any(unfit.values()):
            raise ValueError(f"{_OP}: lazy=True does not go with {next(k for k, bad in unfit.items() if bad)}")
        return _note(data, max_value, copy, layer, device)
    if not is_anndata(data):
        if layer is not None or obsm is not None:
            raise ValueError(f"{_OP}: layer and obsm need an AnnData (got {type(data).__name__})")
        if isinstance(mask_obs, str):
            raise ValueError(f"{_OP}: mask_obs={mask_obs!r} names a column and needs an AnnData; give a boolean array")
        mask = boolean_mask(mask_obs, None, data.shape[0], _OP, "mask_obs")
        return _transform(data, zero_center, max_value, mask, device, fresh=copy or not inplace)[0]
    check_copy_inplace(_OP, copy, inplace)
    adata = data.copy() if copy else data
    mask = boolean_mask(mask_obs, adata.obs, adata.n_obs, _OP, "mask_obs")
    if not inplace:
        source = get_matrix(adata, _OP, layer=layer, obsm=obsm)
        return _transform(source, zero_center, max_value, mask, device, fresh=True)[0]
    if obsm is None and noted_residuals(adata, layer, _OP) is not None:
        raise ValueError(
            f"{_OP}: regress_out(lazy=True) is still to be done: use scale(lazy=True), or regress_out without it"
        )
    source = get_matrix(adata, _OP, layer=layer, obsm=obsm)
    if adata.is_view:  # what is wrong is said before the view becomes a copy
        check_matrix(source, _OP)
        _transform(np.empty((0, 0), np.float32), zero_center, max_value, None, "cpu", fresh=False)
        make_actual(adata, _OP)
        source = get_matrix(adata, _OP, layer=layer, obsm=obsm)
    result, mean, std = _transform(source, zero_center, max_value, mask, device, fresh=False)
    set_matrix(adata, result, layer=layer, obsm=obsm)
    if obsm is None:
        if noted_scale(adata, layer) is not None:
            del adata.uns["scale"]  # what was put off is done now
        if mask_obs is None:
            names = ("mean", "std")
        elif isinstance(mask_obs, str):
            names = (f"mean of {mask_obs}", f"std of {mask_obs}")
        else:
            names = ("mean with mask", "std with mask")
        for name, column in zip(names, (mean, std), strict=True):
            adata.var[name] = to_numpy(column)
    return adata if copy else None


def _note(data: AnnData, max_value: float | None, copy: bool, layer: str | None, device: str | None) -> AnnData | None:
    if max_value is not None and not max_value > 0:
        raise ValueError(f"{_OP}: max_value must be positive (got {max_value})")
    adata = data.copy() if copy else data
    x = get_matrix(adata, _OP, layer=layer)
    ctx = make_context(x, op=_OP, device=device)
    arg = pack(x, _OP, int_dtype="float64", blocks=True).arg
    if (residuals := noted_residuals(adata, layer, _OP)) is not None:
        arg = residuals(arg)
    mean, variance = (to_numpy(v)[0] for v in _core.pp.gene_moments(ctx, arg)[:2])
    std = np.sqrt(variance)
    std[std == 0] = 1
    make_actual(adata, _OP)
    adata.var["mean"], adata.var["std"] = mean, std
    adata.uns["scale"] = {"lazy": True}
    if max_value is not None:
        adata.uns["scale"]["max_value"] = float(max_value)
    if layer is not None:
        adata.uns["scale"]["layer"] = layer
    return adata if copy else None


def noted_scale(adata: AnnData, layer: str | None) -> Any:
    """What ``scale(lazy=True)`` left to do for ``X`` or a layer, or ``None``."""
    note = adata.uns.get("scale")
    if not isinstance(note, Mapping) or not note.get("lazy", False) or note.get("layer") != layer:
        return None
    return note


def _transform(
    x: Any, zero_center: bool, max_value: float | None, mask: Any, device: str | None, *, fresh: bool
) -> tuple[Any, Any, Any]:
    ctx = make_context(x, op=_OP, device=device)
    if mask is not None:
        mask = np.ascontiguousarray(mask).view(np.uint8)
        if is_cupy(x):
            import cupy

            mask = cupy.asarray(mask)
    zero_center, max_value = bool(zero_center), None if max_value is None else float(max_value)
    if is_sparse(x) and zero_center:
        logger.info("%s: centring makes the sparse matrix dense", _OP)
        packed = pack(x, _OP, int_dtype="float64")
        result, mean, std = _core.pp.scale_to_dense(ctx, packed.arg, True, max_value, mask)
        return result, mean, std
    packed = pack(x.copy() if fresh else x, _OP, mutable=True, int_dtype="float64")
    mean, std = _core.pp.scale(ctx, packed.arg, zero_center, max_value, mask)
    return packed.result(), mean, std
