"""AnnData written in every format that is read by rows, in chunks that end anywhere."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import anndata as ad

import scwarp as scw

FORMATS = ("h5ad", "zarr2", "zarr3")


def write(a: ad.AnnData, folder: Path, form: str, name: str = "a") -> Path:
    """A file or store of anndata's. Matrices of a store are in chunks of odd sizes (version 3: in shards of them)."""
    if form == "h5ad":
        a.write_h5ad(folder / f"{name}.h5ad")
        return folder / f"{name}.h5ad"
    import zarr

    path = folder / f"{name}.zarr"
    with ad.settings.override(zarr_write_format=int(form[-1])):
        a.write_zarr(path)
    root = zarr.open_group(path, mode="r+", use_consolidated=False)
    for slot in ("", "layers/", "raw/"):
        group = root.get(slot.strip("/")) if slot else root
        for key in group or ():
            x = group[key]
            if x.attrs.get("encoding-type") in ("csr_matrix", "csc_matrix"):
                for part in ("data", "indices"):
                    _rechunk(x, part, (7777,), form == "zarr3")
            elif x.attrs.get("encoding-type") == "array" and x.ndim == 2:
                _rechunk(group, key, (337, 71), form == "zarr3")
    zarr.consolidate_metadata(path)
    return path


def _rechunk(group: Any, name: str, chunks: tuple[int, ...], sharded: bool) -> None:
    x = group[name]
    values, attributes = x[:], dict(x.attrs)
    shards = tuple(3 * k for k in chunks) if sharded else None
    group.create_array(name, data=values, chunks=chunks, shards=shards, attributes=attributes, overwrite=True)


def reader(path: Path) -> Callable[..., ad.AnnData]:
    return scw.read_h5ad if path.suffix == ".h5ad" else scw.read_zarr


def read(path: Path, *args: Any, **kwargs: Any) -> ad.AnnData:
    return reader(path)(path, *args, **kwargs)


def opened(path: Path, mode: str = "r") -> Any:
    """The root group, to be used in a with statement."""
    if path.suffix == ".h5ad":
        import h5py

        return h5py.File(path, mode)
    import zarr

    return nullcontext(zarr.open_group(path, mode=mode))


def whole(path: Path) -> ad.AnnData:
    """By anndata."""
    return ad.read_h5ad(path) if path.suffix == ".h5ad" else ad.read_zarr(path)
