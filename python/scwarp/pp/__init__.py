"""Preprocessing."""

from ._log1p import log1p
from ._normalize_total import normalize_total

__all__ = ["log1p", "normalize_total"]
