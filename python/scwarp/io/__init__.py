"""Reading and writing files."""

from ._convert import concat_on_disk, convert
from ._h5ad import read_h5ad, write_h5ad
from ._read import read
from ._tables import read_10x_h5, read_10x_mtx, read_csv, write_10x_h5, write_10x_mtx
from ._zarr import read_zarr, write_zarr

__all__ = [
    "concat_on_disk",
    "convert",
    "read",
    "read_10x_h5",
    "read_10x_mtx",
    "read_csv",
    "read_h5ad",
    "read_zarr",
    "write_10x_h5",
    "write_10x_mtx",
    "write_h5ad",
    "write_zarr",
]
