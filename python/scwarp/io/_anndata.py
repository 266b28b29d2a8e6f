"""Reading AnnData from the formats that hold it: matrices by scwarp, the rest by anndata."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import _core
from .._context import device_context, is_cupy, make_context
from .._on_disk import open_columns, open_matrix
from .._settings import logger

if TYPE_CHECKING:
    from anndata import AnnData

_MATRICES = ("csr_matrix", "array")
_MANY_TEXTS = 10_000  # from here on, scwarp's way to texts is worth opening the file once more


@dataclass(frozen=True)
class Format:
    """What h5ad and Zarr do not share."""

    op: str
    open: Callable[[str], Any]  # a context manager of the root group
    matrix: Callable[..., Any]  # one matrix, by scwarp
    whole: Callable[[str], AnnData]  # everything, by anndata
    texts: Callable[..., list[str]] | None = None  # one array of texts, by scwarp


def _open_h5ad(path: str) -> Any:
    import h5py

    return h5py.File(path, "r")


def _open_zarr(path: str) -> Any:
    import zarr

    if not os.path.isdir(path):
        raise FileNotFoundError(f"read_zarr: '{path}' is not a folder")
    return nullcontext(zarr.open_group(path, mode="r"))


def _whole_h5ad(path: str) -> AnnData:
    import anndata

    return anndata.read_h5ad(path)


def _whole_zarr(path: str) -> AnnData:
    import anndata

    return anndata.read_zarr(path)


H5AD = Format("read_h5ad", _open_h5ad, _core.io.read_h5ad_matrix, _whole_h5ad, _core.io.read_h5ad_texts)
ZARR = Format("read_zarr", _open_zarr, _core.io.read_zarr_matrix, _whole_zarr)


def _is_group(node: Any) -> bool:
    return node is not None and not hasattr(node, "dtype")


def _holds_numbers(node: Any) -> bool:
    """Whether it is a matrix of real numbers; of other things scwarp reads nothing."""
    values = node.get("data") if _is_group(node) else node
    return getattr(getattr(values, "dtype", None), "kind", "f") in "biuf"


def _expect_anndata(op: str, path: str, f: Any) -> None:
    """For files without the mark of anndata 0.8 and later: older ones have it by their groups."""
    names = set(f)
    if names & {"X", "obs", "var"} or not names:
        return
    what = f"is one {kind} of a file" if (kind := f.attrs.get("encoding-type")) else f"holds {', '.join(sorted(names))}"
    if "matrix" in names or any(_is_group(f[k]) and "barcodes" in f[k] for k in names):
        what = "is 10x Genomics HDF5: use read_10x_h5"
    raise ValueError(f"{op}: {path!r} is no AnnData: it {what}")


def _keys(group: Any, name: str) -> list[str]:
    return list(group[name]) if name in group else []


def read_anndata(
    how: Format,
    path: str,
    backed: str | bool | None = None,
    *,
    check_counts: bool = False,
    obs_mask: Any = None,
    var_mask: Any = None,
    device: str | None = None,
    layers_on_device: bool = False,
) -> AnnData:
    """See :func:`scwarp.read_h5ad` and :func:`scwarp.read_zarr`."""
    op = how.op
    if backed:
        if check_counts or device is not None or layers_on_device:
            raise ValueError(f"{op}: backed reads no values: check_counts and device do not go with it")
        if obs_mask is not None or var_mask is not None:
            raise ValueError(f"{op}: backed loads nothing: subset the result instead of obs_mask and var_mask")
        return _read_backed(how, path, backed)
    ctx = make_context(op=op, device="cpu")
    on_device = None if device in (None, "cpu") else device_context(op, str(device))
    with how.open(path) as f:
        known = f.attrs.get("encoding-type") == "anndata" and _is_group(f.get("obs"))
        if not known:
            _expect_anndata(op, path, f)
        elements = ["X", *(f"layers/{k}" for k in _keys(f, "layers"))] if known else []
        selected = obs_mask is not None or var_mask is not None
        if selected and _is_group(f.get("raw")):
            elements.append("raw/X")
        encodings = {k: f[k].attrs.get("encoding-type") for k in elements if k in f}
        if selected and not known:
            raise NotImplementedError(f"{op}: {path!r} has an old layout: read all of it and subset that")
        masks: list[Any] = [
            None if mask is None else _mask(op, mask, f[axis], name)
            for mask, axis, name in ((obs_mask, "obs", "obs_mask"), (var_mask, "var", "var_mask"))
            if selected
        ]

        def target(name: str) -> Any:
            return on_device if name == "X" or layers_on_device else None

        # CSC stays CSC on the host, which anndata reads.
        kinds = (*_MATRICES, "csc_matrix") if selected else _MATRICES
        numbers = {k: e for k, e in encodings.items() if _holds_numbers(f[k])}  # the rest is anndata's
        ours = [k for k, e in numbers.items() if e in kinds or (e == "csc_matrix" and target(k) is not None)]
        if ours or selected:
            # anndata works in a thread of its own, beside ours and so that Ctrl-C stops ours. A million names take it
            # longer than a fast disk takes for the matrix: the AnnData is made there too.
            read_elem = _read_elem(how, path)

            def make_rest() -> tuple[dict[str, Any], AnnData | None]:
                parts = _read_rest(f, set(ours), read_elem)
                return parts, None if selected else _without_matrices(parts)

            with ThreadPoolExecutor(1) as pool:
                rest = pool.submit(make_rest)
                read = {}
                for name in ours:
                    where = ctx if target(name) is None else target(name)
                    pick = masks if name != "raw/X" else masks[:1]  # genes of raw are its own
                    try:
                        x = matrix_from(how.matrix(where, path, name, check_counts and name == "X", *pick))
                    except TypeError as error:  # integers above 2**53
                        if target(name) is not None or (check_counts and name == "X"):
                            raise
                        logger.info("%s; read by anndata", error)
                        read[name] = _selection(_read_elem()(f[name]), pick)
                        continue
                    read[name] = x.tocsc() if encodings[name] == "csc_matrix" and target(name) is None else x
                if check_counts and "X" in encodings and "X" not in read:
                    how.matrix(ctx, path, "X", True)
                parts, adata = rest.result()
    if not ours and not selected:
        whole = how.whole(path)
        if check_counts and whole.X is not None:
            how.matrix(ctx, path, "X", True)
        if on_device is not None and whole.X is not None:
            whole.X = _to_device(whole.X)
        return whole
    if selected:
        parts = _subset(parts, masks)
    parts["X"] = read.get("X", parts["X"])
    if "raw/X" in read:
        parts["raw"]["X"] = read["raw/X"]
    parts["layers"] = {k: read.get(f"layers/{k}", v) for k, v in parts["layers"].items()}
    x = parts["X"]
    if adata is None or (x is not None and x.shape != adata.shape):  # (of other shapes: anndata says so)
        import anndata

        return anndata.AnnData(**parts)
    if x is not None:
        adata.X = x
    for key, layer in parts["layers"].items():
        adata.layers[key] = layer
    return adata


def _without_matrices(parts: dict[str, Any]) -> AnnData | None:
    """All but X and layers, which arrive later; None if anndata makes something of X."""
    import anndata

    raw = parts.get("raw")
    if "obs" not in parts or "var" not in parts or parts["X"] is not None or (raw is not None and "X" not in raw):
        return None
    return anndata.AnnData(**{k: v for k, v in parts.items() if k not in ("X", "layers")})


def _mask(op: str, mask: Any, frame: Any, name: str) -> Any:
    """One byte per cell or gene."""
    index = frame[frame.attrs.get("_index", "_index")]
    n = index.shape[0]
    mask = np.asarray(mask)
    if mask.dtype == bool:
        if mask.shape != (n,):
            raise ValueError(f"{op}: {name} has shape {mask.shape} (expected {(n,)})")
        return mask.astype(np.uint8)
    if mask.ndim != 1 or (mask.size and mask.dtype.kind not in "iu"):
        raise TypeError(f"{op}: {name} must be booleans or positions (got {mask.dtype}, {mask.ndim} dimensions)")
    if mask.size and (mask[0] < 0 or mask[-1] >= n or (np.diff(mask) <= 0).any()):
        raise ValueError(f"{op}: positions of {name} must rise, from 0 to {n - 1} at most")
    out = np.zeros(n, np.uint8)
    out[mask.astype(np.int64)] = 1
    return out


def _subset(parts: dict[str, Any], masks: list[Any]) -> dict[str, Any]:
    """What AnnData() takes of selected cells and genes; matrices that are read elsewhere stay None."""
    import anndata

    layers, raw = parts.pop("layers"), parts.pop("raw", None)
    whole = anndata.AnnData(**parts, layers={k: v for k, v in layers.items() if v is not None})
    obs, var = (slice(None) if m is None else m.view(bool) for m in masks)
    some = whole[obs, var].copy()
    out: dict[str, Any] = {"X": some.X, "obs": some.obs, "var": some.var, "uns": some.uns}
    for slot in ("obsm", "varm", "obsp", "varp"):
        out[slot] = dict(getattr(some, slot))
    out["layers"] = {k: None if v is None else some.layers[k] for k, v in layers.items()}
    if raw is not None:
        x = raw["X"]
        out["raw"] = {**raw, "X": None if x is None else x[obs]}
    return out


def _selection(x: Any, masks: list[Any]) -> Any:
    for axis, mask in enumerate(masks):
        if mask is not None:
            x = x[np.flatnonzero(mask)] if axis == 0 else x[:, np.flatnonzero(mask)]
    return x


class _Texts:
    """A dataset of texts of h5py's, with ``asstr()[()]`` there already."""

    def __init__(self, dataset: Any, values: np.ndarray | None) -> None:
        self._dataset, self._values = dataset, values

    def asstr(self, *args: Any, **kwargs: Any) -> Any:
        plain = self._dataset.asstr(*args, **kwargs)
        return plain if args or kwargs else _Whole(plain, self._values)

    def __getitem__(self, key: Any) -> Any:
        return self._dataset[key]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._dataset, name)


class _Whole(_Texts):
    def __getitem__(self, key: Any) -> Any:
        return self._values if isinstance(key, tuple) and not key else self._dataset[key]


def _read_elem(how: Format | None = None, path: str = "") -> Callable[[Any], Any]:
    """anndata's reader of elements. With a file's format, long arrays of texts come from scwarp: h5py takes a library
    call per text, and another one to decode it."""
    import anndata

    plain: Callable[[Any], Any] = anndata.io.read_elem if hasattr(anndata, "io") else anndata.experimental.read_elem
    read_dispatched = getattr(anndata.experimental, "read_dispatched", None)
    if how is None or how.texts is None or read_dispatched is None:
        return plain
    texts, ctx = how.texts, make_context(op=how.op, device="cpu")

    def element(func: Any, name: str, elem: Any, iospec: Any) -> Any:
        import h5py

        if iospec.encoding_type != "string-array" or not isinstance(elem, h5py.Dataset) or elem.size < _MANY_TEXTS:
            return func(elem)
        kind = h5py.check_string_dtype(elem.dtype)
        if kind is None or kind.encoding != "utf-8" or kind.length is not None:
            return func(elem)
        try:
            found = texts(ctx, path, elem.name.strip("/"))
        except (OSError, RuntimeError, ValueError, NotImplementedError):  # let anndata say what it thinks of them
            return func(elem)
        values = np.empty(len(found), object)
        values[:] = found
        return func(_Texts(elem, values.reshape(elem.shape)))

    return lambda elem: read_dispatched(elem, element)


def _read_slots(f: Any, read: Callable[[Any], Any]) -> dict[str, Any]:
    """Everything but matrices of the size of X."""
    return {slot: read(f[slot]) for slot in ("obs", "var", "obsm", "varm", "obsp", "varp", "uns") if slot in f}


def _read_rest(f: Any, without: set[str], read: Callable[[Any], Any]) -> dict[str, Any]:
    """What AnnData() takes, by anndata; None for the elements of ``without``."""
    parts: dict[str, Any] = {"X": None, "layers": {}, **_read_slots(f, read)}
    for key in _keys(f, "layers"):
        parts["layers"][key] = None if f"layers/{key}" in without else read(f[f"layers/{key}"])
    if "X" in f and "X" not in without:
        parts["X"] = read(f["X"])
    if _is_group(f.get("raw")):
        parts["raw"] = {
            k: None if f"raw/{k}" in without else read(f[f"raw/{k}"]) for k in ("X", "var", "varm") if k in f["raw"]
        }
    return parts


def _to_device(x: Any) -> Any:
    import cupy
    import scipy.sparse as sp

    if sp.issparse(x):
        from cupyx.scipy.sparse import csr_matrix

        return csr_matrix(x.tocsr())
    return cupy.asarray(x)


def _read_backed(how: Format, path: str, backed: str | bool) -> AnnData:
    import anndata

    if backed not in ("r", True):
        raise ValueError(f"{how.op}: backed={backed!r}; expected 'r' (scwarp never writes into an open file)")
    read = _read_elem(how, path)
    with how.open(path) as f:
        if f.attrs.get("encoding-type") != "anndata" or not _is_group(f.get("obs")):
            raise NotImplementedError(
                f"{how.op}: '{path}' was written by anndata before 0.8, which backed does not read: write it anew"
            )

        def on_disk(name: str) -> Any:
            """A matrix of the file that stays there; other things (none, data frames) are read."""
            if name not in f:
                return None
            kind = f[name].attrs.get("encoding-type")
            if not _holds_numbers(f[name]):
                return read(f[name])
            if kind == "csc_matrix" and name != "X":
                return open_columns(path, name, f[name])
            if kind in (*_MATRICES, "csc_matrix"):
                return open_matrix(path, name)
            return read(f[name])

        parts: dict[str, Any] = {**_read_slots(f, read), "X": on_disk("X")}
        parts["layers"] = {k: on_disk(f"layers/{k}") for k in _keys(f, "layers")}
        if _is_group(f.get("raw")):  # version 2 of Zarr has an array in place of none
            parts["raw"] = {k: read(f[f"raw/{k}"]) for k in ("var", "varm") if k in f["raw"]}
            parts["raw"]["X"] = on_disk("raw/X")
    return anndata.AnnData(**parts)


def matrix_from(read: tuple[Any, tuple[int, int], str, str]) -> Any:
    data, shape, _, stored_dtype = read
    values = data[2] if isinstance(data, tuple) else data
    dtype = stored_dtype or values.dtype
    if is_cupy(values):
        if not str(dtype).startswith("float") or str(dtype) == "float16":
            dtype = values.dtype  # CuPy's sparse matrices hold floats
        from cupyx.scipy.sparse import csr_matrix
    else:
        from scipy.sparse import csr_matrix
    values = values.astype(dtype, copy=False)
    if not isinstance(data, tuple):
        return values
    indptr, indices, _ = data
    if len(values) < 2**31:
        indptr = indptr.astype(np.int32)
    else:
        indices = indices.astype(np.int64)
    x = csr_matrix((values, indices, indptr), shape=shape, copy=False)
    x.has_sorted_indices = True
    x.has_canonical_format = True
    return x
