"""Data to try things on."""

from ._simulate import simulate

__all__ = ["simulate"]
