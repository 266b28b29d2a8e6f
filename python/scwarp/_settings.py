"""Process-wide settings: ``scwarp.settings``."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from . import _core

logger = logging.getLogger("scwarp")

_NAMES = ("device", "n_threads", "seed", "progress", "memory_limit", "block_bytes", "verbosity")


class Settings:
    """How and where operations run. Every attribute can be set (a name that is none of these is an error); ``override``
    sets some for a block of code.

    Attributes
    ----------
    device
        ``"auto"`` (default), ``"cpu"``, ``"cuda"`` or ``"cuda:1"``: where operations on host data run. ``"auto"``: on
        CUDA if there is a device and the operation has CUDA kernels, else on the CPU; said once in the log. With
        ``"cuda"`` there is no fallback: no usable device is ``BackendUnavailable``, no kernel ``NotImplementedError``.
        Host matrices are uploaded or streamed, results come back to host slots. Data on a GPU (CuPy) always run there.
    n_threads
        CPU threads; 0 (default) means all that the process may use. Results do not depend on it.
    seed
        Used by seeded functions called without ``random_state`` and ``rng``; 0 as in scanpy.
    progress
        Show a progress bar for long operations (default False).
    memory_limit
        Bytes (int) or text such as ``"8GB"`` that scwarp's own host buffers may use, ``None`` for no limit. (Device
        memory: ``scwarp.memory.configure``.)
    block_bytes
        Bytes (int or text) of a host matrix that are on the device at once when it is streamed; ``None`` (default):
        chosen by the free memory. Results do not depend on it.
    verbosity
        0 warnings (default), 1 info (where an operation runs, conversions), 2 debug; ``"warning"``, ``"info"`` and
        ``"debug"`` mean the same. 3 and 4, which scanpy has above, say no more than 2. Messages go to the standard
        logger ``scwarp``.
    N_PCS
        Number of principal components that ``neighbors`` asks for by default (50).
    """

    N_PCS = 50

    def __init__(self) -> None:
        self._device = "auto"
        self._n_threads = 0
        self._seed = 0
        self._progress = False
        self._memory_limit: int | None = None
        self._block_bytes: int | None = None
        self._verbosity = 0

    def __setattr__(self, name: str, value: Any) -> None:
        if not name.startswith("_") and not hasattr(type(self), name):
            raise AttributeError(f"settings: there is no {name!r} (it has: {', '.join(_NAMES)}, N_PCS)")
        super().__setattr__(name, value)

    @property
    def device(self) -> str:
        return self._device

    @device.setter
    def device(self, value: str) -> None:
        if value != "auto":
            _core.unavailable_reason(value)  # parses; raises ValueError for an unknown name
        self._device = value

    @property
    def n_threads(self) -> int:
        return self._n_threads

    @n_threads.setter
    def n_threads(self, value: int) -> None:
        if int(value) < 0:
            raise ValueError(f"settings.n_threads: must be 0 (all) or positive (got {value})")
        self._n_threads = int(value)

    @property
    def seed(self) -> int:
        return self._seed

    @seed.setter
    def seed(self, value: int) -> None:
        if int(value) < 0:
            raise ValueError(f"settings.seed: must not be negative (got {value})")
        self._seed = int(value)

    @property
    def progress(self) -> bool:
        return self._progress

    @progress.setter
    def progress(self, value: bool) -> None:
        self._progress = bool(value)

    @property
    def memory_limit(self) -> int | None:
        return self._memory_limit

    @memory_limit.setter
    def memory_limit(self, value: int | str | None) -> None:
        limit = None if value is None else parse_bytes(value)
        _core.set_memory_limit(limit or 0)
        self._memory_limit = limit

    @property
    def block_bytes(self) -> int | None:
        return self._block_bytes

    @block_bytes.setter
    def block_bytes(self, value: int | str | None) -> None:
        self._block_bytes = None if value is None else parse_bytes(value)

    @property
    def verbosity(self) -> int:
        return self._verbosity

    @verbosity.setter
    def verbosity(self, value: int | str) -> None:
        names = {"warning": 0, "info": 1, "debug": 2}
        number = names.get(value, -1) if isinstance(value, str) else value
        if number not in range(5):
            raise ValueError(f"settings.verbosity: must be 0 to 4 or one of {', '.join(names)} (got {value!r})")
        self._verbosity = min(int(number), 2)
        logger.setLevel((logging.WARNING, logging.INFO, logging.DEBUG)[self._verbosity])

    @contextmanager
    def override(self, **values: Any) -> Iterator[Settings]:
        """Set some attributes for a ``with`` block."""
        old = {name: getattr(self, name) for name in values}
        try:
            for name, value in values.items():
                setattr(self, name, value)
            yield self
        finally:
            for name, value in old.items():
                setattr(self, name, value)

    def __repr__(self) -> str:
        return "scwarp.settings(" + ", ".join(f"{n}={getattr(self, n)!r}" for n in _NAMES) + ")"


def parse_bytes(value: int | str) -> int:
    """``"8GB"`` -> 8e9, ``"512MiB"`` -> 512 * 2**20, ``123`` -> 123."""
    units = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
    units |= {"KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}
    text = str(value).strip()
    number = text.rstrip("BbKkMmGgTtIi ")
    unit = text[len(number) :].strip().upper()
    try:
        result = int(float(number) * units[unit])
    except (ValueError, KeyError):
        raise ValueError(f"memory size: got {value!r}, expected bytes or text such as '8GB' or '512MiB'") from None
    if result <= 0:
        raise ValueError(f"memory size: must be positive (got {value!r})")
    return result


settings = Settings()
