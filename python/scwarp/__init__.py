"""scwarp: single-cell analysis on CPU and CUDA with scanpy's API.

    import scwarp as scw
    scw.pp.normalize_total(adata, target_sum=1e4)
    scw.pp.log1p(adata)

Every function takes and changes ordinary AnnData objects and writes the slots that scanpy writes.
"""

from __future__ import annotations

from . import datasets, get, io, memory, pp, tl
from ._core import BackendUnavailable, DataError, __version__
from ._settings import settings
from .io import (
    concat_on_disk,
    convert,
    read,
    read_10x_h5,
    read_10x_mtx,
    read_csv,
    read_h5ad,
    read_zarr,
    write_10x_h5,
    write_10x_mtx,
    write_h5ad,
    write_zarr,
)

__all__ = [
    "BackendUnavailable",
    "DataError",
    "__version__",
    "concat_on_disk",
    "convert",
    "datasets",
    "get",
    "io",
    "memory",
    "pp",
    "read",
    "read_10x_h5",
    "read_10x_mtx",
    "read_csv",
    "read_h5ad",
    "read_zarr",
    "settings",
    "tl",
    "write_10x_h5",
    "write_10x_mtx",
    "write_h5ad",
    "write_zarr",
]
