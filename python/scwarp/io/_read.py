from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from .. import _core
from ._h5ad import read_h5ad
from ._tables import read_10x_h5, read_10x_mtx, read_csv
from ._zarr import read_zarr

if TYPE_CHECKING:
    from anndata import AnnData


def read(filename: str | os.PathLike[str], **kwargs: Any) -> AnnData:
    """Read h5ad, Zarr, 10x Genomics HDF5, a 10x folder or a table, told apart by content, not by name.

    Parameters
    ----------
    filename
        The file or folder.
    kwargs
        Passed on to the reader of that format: :func:`read_h5ad`, :func:`read_zarr`, :func:`read_10x_h5`,
        :func:`read_10x_mtx` or :func:`read_csv`.
    """
    import h5py

    path = os.fspath(filename)
    if not os.path.exists(path):
        raise FileNotFoundError(f"read: {path!r} does not exist")
    if os.path.isdir(path):
        return read_zarr(path, **kwargs) if _core.io.is_zarr(path) else read_10x_mtx(path, **kwargs)
    if not h5py.is_hdf5(path):
        return read_csv(path, **kwargs)
    with h5py.File(path, "r") as f:
        is_h5ad = "obs" in f and "var" in f
    return read_h5ad(path, **kwargs) if is_h5ad else read_10x_h5(path, **kwargs)
