"""Builds the C++ context of a call: device, threads, seed, log and progress."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np

from . import _core
from ._settings import logger, settings

_LEVELS = {0: logging.DEBUG, 1: logging.INFO, 2: logging.WARNING}


def is_cupy(x: Any) -> bool:
    """Whether ``x`` is a CuPy array or CuPy sparse matrix, without importing CuPy."""
    return type(x).__module__.partition(".")[0] in ("cupy", "cupyx")


def _log(level: int, message: str) -> None:
    logger.log(_LEVELS[level], message)


class _Bar:
    """A tqdm bar for each step; quiet for work that ends at once."""

    def __init__(self) -> None:
        self.step: str | None = None
        self.bar: Any = None

    def __call__(self, step: str, done: int, total: int) -> None:
        if step != self.step:
            from tqdm.auto import tqdm

            self.close()
            self.step, self.bar = step, tqdm(total=total or None, desc=step, leave=False, delay=0.5)
        self.bar.update(done - self.bar.n)
        if total and done >= total:
            self.close()

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()
        self.step = self.bar = None


def make_context(x: Any = None, *, op: str, device: str | None = None, seed: int = 0) -> _core.Context:
    """The context for an operation whose main input is ``x`` (an array or sparse matrix, host or CuPy).

    Data on a GPU run there; host data run where ``device`` or ``settings.device`` says.
    """
    stream = 0
    if is_cupy(x):
        import cupy

        values = x.data if hasattr(x, "indptr") else x
        where = f"cuda:{values.device.id}"
        if device is not None and device not in ("auto", "cuda", where):
            raise TypeError(
                f"{op}: the data are on {where}, device={device!r} was asked for; "
                "move them with scwarp.get.anndata_to_CPU or leave device out"
            )
        stream = cupy.cuda.get_current_stream().ptr
    else:
        asked = settings.device if device is None else device
        if asked not in ("auto", "cpu"):
            reason = _core.unavailable_reason(asked)
            if reason:
                raise RuntimeError(f"{op}: device={asked!r} cannot be used: {reason}")
            raise NotImplementedError(
                f"{op}: host data with device={asked!r}; nothing is moved silently: "
                "move the data with scwarp.get.anndata_to_GPU first"
            )
        where = "cpu"
    if logger.isEnabledFor(logging.DEBUG):
        logger.debug("%s: runs on %s", op, where)
    progress = _Bar() if settings.progress else None
    return _core.Context(where, settings.n_threads, seed, stream, _log, progress)


_UNSET: Any = object()


def resolve_seed(op: str, random_state: Any = 0, rng: Any = _UNSET) -> int:
    """The integer seed of a call that takes ``random_state`` (scanpy) or ``rng`` (rapids-singlecell)."""
    if rng is not _UNSET and rng is not None:
        if random_state not in (0, None):
            raise TypeError(f"{op}: give random_state or rng, not both")
        return int(np.random.default_rng(rng).integers(2**32))
    if random_state is None:
        return int(np.random.SeedSequence().generate_state(1)[0])
    if isinstance(random_state, np.random.RandomState):
        return int(random_state.randint(2**31))
    if isinstance(random_state, np.random.Generator):
        return int(random_state.integers(2**32))
    seed = int(random_state)
    if seed < 0:
        raise ValueError(f"{op}: random_state must not be negative (got {seed})")
    return seed or settings.seed
