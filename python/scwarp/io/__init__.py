"""Reading and writing h5ad files."""

from ._h5ad import read_h5ad, write_h5ad

__all__ = ["read_h5ad", "write_h5ad"]
