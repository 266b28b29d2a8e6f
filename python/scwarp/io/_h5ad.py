from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import _core
from .._context import make_context
from .._settings import logger

if TYPE_CHECKING:
    from anndata import AnnData

_MATRICES = ("csr_matrix", "array")
_FLOATS = ("float32", "float64")


def read_h5ad(filename: str | os.PathLike[str], *, check_counts: bool = False) -> AnnData:
    """Read an h5ad file into an AnnData in memory.

    ``X`` and ``layers`` are read by scwarp, whose threads unpack gzip, zstd, blosc, lz4 and lzf; the rest by anndata.
    Indices are checked.

    Parameters
    ----------
    filename
        The file.
    check_counts
        Refuse NaN, infinite and negative values in ``X``: :class:`scwarp.DataError` names the first cell and gene.
    """
    import anndata
    import h5py

    path = os.fspath(filename)
    ctx = make_context(op="read_h5ad")
    ours: dict[str, Any] = {}
    with h5py.File(path, "r") as f:
        known = f.attrs.get("encoding-type") == "anndata" and isinstance(f.get("obs"), h5py.Group)
        names = [
            name
            for name in ("X", *(f"layers/{k}" for k in f.get("layers", ())))
            if known and name in f and f[name].attrs.get("encoding-type") in _MATRICES
        ]
        if not known or not names:
            # Old layouts and CSC, rows of which anndata wants as they are
            adata = anndata.read_h5ad(path)
            if check_counts and adata.X is not None:
                _core.io.read_h5ad_matrix(ctx, path, "X", True)
            return adata
        for name in names:
            ours[name] = _matrix(_core.io.read_h5ad_matrix(ctx, path, name, check_counts and name == "X"))
        if check_counts and "X" in f and "X" not in ours:
            _core.io.read_h5ad_matrix(ctx, path, "X", True)
        parts: dict[str, Any] = {}
        read = anndata.io.read_elem if hasattr(anndata, "io") else anndata.experimental.read_elem
        for slot in ("obs", "var", "obsm", "varm", "obsp", "varp", "uns"):
            if slot in f:
                parts[slot] = read(f[slot])
        layers = {k: ours.get(f"layers/{k}") for k in f.get("layers", ())}
        parts["layers"] = {k: read(f[f"layers/{k}"]) if v is None else v for k, v in layers.items()}
        parts["X"] = ours["X"] if "X" in ours else read(f["X"]) if "X" in f else None
        if isinstance(f.get("raw"), h5py.Group):
            parts["raw"] = {k: read(f[f"raw/{k}"]) for k in ("X", "var", "varm") if k in f["raw"]}
    return anndata.AnnData(**parts)


def _matrix(read: tuple[Any, tuple[int, int], str, str]) -> Any:
    data, shape, _, stored_dtype = read
    if not isinstance(data, tuple):
        return data.astype(stored_dtype or data.dtype, copy=False)
    import scipy.sparse as sp

    indptr, indices, values = data
    if len(values) < 2**31:
        indptr = indptr.astype(np.int32)
    else:
        indices = indices.astype(np.int64)
    x = sp.csr_matrix(
        (values.astype(stored_dtype or values.dtype, copy=False), indices, indptr), shape=shape, copy=False
    )
    x.has_sorted_indices = True
    x.has_canonical_format = True
    return x


def write_h5ad(
    adata: AnnData, filename: str | os.PathLike[str], *, compression_level: int = 1, device: str | None = None
) -> None:
    """Write an AnnData to an h5ad file that anndata 0.8 and later read.

    The file is complete or not there: it is written beside ``filename`` and renamed once it is on disk. ``adata`` is
    left as it is (anndata's own writer turns text columns into categories in place; here only the file has them).
    ``None`` values of ``uns`` are left out: anndata before 0.12 cannot read them.

    Parameters
    ----------
    adata
        What to write.
    filename
        The file; replaced if it exists.
    compression_level
        Level of gzip, 1 to 9; 0: none. scwarp's threads compress.
    """
    import anndata

    from .._matrix import pack

    target = Path(os.fspath(filename))
    ctx = make_context(op="write_h5ad", device=device)
    matrices = {"X": adata.X, **{f"layers/{k}": v for k, v in adata.layers.items()}}
    ours = {k: v for k, v in matrices.items() if _is_ours(v) and "/" not in k.removeprefix("layers/")}
    light = anndata.AnnData(
        X=None if "X" in ours else adata.X,
        obs=adata.obs.copy(),
        var=adata.var.copy(),
        uns=_without_none(adata.uns, "uns"),
        obsm=dict(adata.obsm),
        varm=dict(adata.varm),
        obsp=dict(adata.obsp),
        varp=dict(adata.varp),
        layers={k: v for k, v in adata.layers.items() if f"layers/{k}" not in ours},
    )
    if adata.raw is not None:
        light.raw = anndata.AnnData(X=adata.raw.X, var=adata.raw.var, varm=dict(adata.raw.varm), obs=light.obs[[]])
    packed = [(k, pack(v, "write_h5ad")) for k, v in ours.items()]
    with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent or ".") as folder:
        rest = os.path.join(folder, "rest.h5ad")
        light.write_h5ad(rest)
        _core.io.copy_h5ad(ctx, rest, str(target), compression_level, False, [(k, p.arg) for k, p in packed])
    logger.debug("write_h5ad: %s", target)


def _without_none(tree: Any, path: str) -> dict[str, Any]:
    """A nested dict without its None values: anndata before 0.12 neither writes them nor reads a file with them."""
    out: dict[str, Any] = {}
    for key, value in tree.items():
        if value is None:
            logger.debug("write_h5ad: %s/%s is None and is left out, as anndata 0.8 to 0.11 leave it out", path, key)
        else:
            out[key] = _without_none(value, f"{path}/{key}") if isinstance(value, Mapping) else value
    return out


def _is_ours(x: Any) -> bool:
    """Whether the C++ writer takes ``x`` without converting it."""
    if isinstance(x, np.ndarray):
        return x.ndim == 2 and x.dtype in _FLOATS
    return getattr(x, "format", None) == "csr" and type(x).__module__.startswith("scipy") and x.dtype in _FLOATS
