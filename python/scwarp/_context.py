"""Builds the C++ context of a call: device, threads, seed, log and progress."""

from __future__ import annotations

import logging
import operator
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


# What may be missing: an exact search takes its place.
_OPTIONAL = {"pp.neighbors": 1}
_told: set[tuple[str, str]] = set()


def _tell(op: str, where: str, why: str) -> None:
    """Says where an operation runs, once."""
    if (op, where) not in _told:
        _told.add((op, where))
        logger.info("%s: runs on %s (%s)", op, where, why)


def choose_device(op: str, device: str | None = None) -> str:
    """Where an operation on host data runs: ``device``, else ``settings.device``; the only place that decides it.

    ``"auto"`` is CUDA if there is a device and it has all kernels of the operation. Functions without kernels (files,
    simulation) run on the host.
    """
    asked = settings.device if device is None else device
    if asked == "cpu":
        return "cpu"
    if _core.kernels(op, "cpu")[1] == 0 and device in (None, "auto"):
        return "cpu"
    reason = _core.unavailable_reason("cuda" if asked == "auto" else asked)
    if reason:
        if asked == "auto":
            return "cpu"
        raise _core.BackendUnavailable(f"{op}: device={asked!r} cannot be used: {reason}")
    where = "cuda:0" if asked in ("auto", "cuda") else asked
    here, there = _core.kernels(op, where)
    if asked == "auto" and here + _OPTIONAL.get(op, 0) < there:
        _tell(op, "cpu", f"{there - here} of {there} kernels have no CUDA version")
        return "cpu"
    if here == 0:
        raise NotImplementedError(f"{op}: has no CUDA implementation (run it with device='cpu', see the support table)")
    _tell(op, where, "data on the host: copied or streamed")
    return where


_PER_THREAD = 2  # cudaStreamPerThread


def cupy_stream(op: str, device_id: int) -> Any:
    """CuPy's current stream on a device, which need not be the current device.

    Not the per-thread default stream: its handle means another stream in each thread, but several threads copy, and any
    thread may free a result, so nothing would be ordered with the caller's work.
    """
    import cupy

    stream = cupy.cuda.get_current_stream(device_id)
    if stream.ptr == _PER_THREAD:
        raise ValueError(
            f"{op}: CuPy's current stream is the per-thread default stream (cupy.cuda.Stream.ptds, or "
            "CUPY_CUDA_PER_THREAD_DEFAULT_STREAM=1), which is another stream in each of scwarp's threads; wait for its "
            "work (cupy.cuda.Stream.ptds.synchronize()) and call in a stream of your own: "
            "with cupy.cuda.Stream(non_blocking=True): ..."
        )
    return stream


def make_context(x: Any = None, *, op: str, device: str | None = None, seed: int = 0) -> _core.Context:
    """The context for an operation whose main input is ``x`` (an array or sparse matrix, host or CuPy).

    Data on a GPU run there; host data run where ``choose_device`` says, and on CUDA come back as host arrays.
    """
    stream = None
    if is_cupy(x):
        values = x.data if hasattr(x, "indptr") else x
        where = f"cuda:{values.device.id}"
        if device is not None and device not in ("auto", "cuda", where):
            raise TypeError(
                f"{op}: the data are on {where}, device={device!r} was asked for; "
                "move them with scwarp.get.anndata_to_CPU or leave device out"
            )
        stream = cupy_stream(op, values.device.id)
    else:
        where = choose_device(op, device)
    if logger.isEnabledFor(logging.DEBUG):
        logger.debug("%s: runs on %s", op, where)
    progress = _Bar() if settings.progress else None
    block_bytes = settings.block_bytes or 0
    handle = 0 if stream is None else stream.ptr
    return _core.Context(
        where, settings.n_threads, seed, handle, _log, progress, not is_cupy(x), block_bytes, stream_owner=stream
    )


def device_context(op: str, device: str) -> _core.Context:
    """The context of an operation whose results are CuPy arrays on ``device``, made in CuPy's current stream."""
    reason = _core.unavailable_reason(device)
    if reason:
        raise _core.BackendUnavailable(f"{op}: device={device!r} cannot be used: {reason}")
    where = "cuda:0" if device == "cuda" else device
    stream = cupy_stream(op, int(where.partition(":")[2]))
    progress = _Bar() if settings.progress else None
    return _core.Context(where, settings.n_threads, 0, stream.ptr, _log, progress, stream_owner=stream)


def copy_context(op: str, x: Any) -> _core.Context:
    """The context of a copy to or from the CuPy array ``x``."""
    where = x.device.id
    stream = cupy_stream(op, where)
    return _core.Context(f"cuda:{where}", settings.n_threads, 0, stream.ptr, None, None, stream_owner=stream)


def to_host(x: Any) -> Any:
    """A CuPy array as a NumPy array: fast, and known as the host side of ``x`` to operations that follow."""
    if not is_cupy(x):
        return x
    import cupy

    x = cupy.ascontiguousarray(x)
    ctx = copy_context("copy to the host", x)
    return _core.get.host_copy(ctx, x.data.ptr, x.nbytes, x).view(x.dtype).reshape(x.shape)


_UNSET: Any = object()


def require_integer(op: str, name: str, value: Any) -> int:
    """``value`` as an int: whole numbers of any integer type, no floats (which ``int`` would cut off)."""
    try:
        return operator.index(value)
    except TypeError:
        raise TypeError(f"{op}: {name} must be an integer (got {value!r})") from None


class _DefaultSeed(int):
    """Shown as 0 in signatures, and told by identity from a 0 that the caller gave."""


# What random_state is where it is not given: settings.seed counts.
DEFAULT_SEED = _DefaultSeed(0)


def resolve_seed(op: str, random_state: Any = DEFAULT_SEED, rng: Any = _UNSET) -> int:
    """The integer seed of a call that takes ``random_state`` (scanpy) or ``rng`` (rapids-singlecell).

    Given as ``random_state``, it is the seed again.
    """
    if rng is not _UNSET and rng is not None:
        if random_state is not DEFAULT_SEED and random_state is not None:
            raise TypeError(f"{op}: give random_state or rng, not both")
        return int(np.random.default_rng(rng).integers(2**32))
    if random_state is DEFAULT_SEED:
        return settings.seed
    if random_state is None:
        return int(np.random.SeedSequence().generate_state(1)[0])
    if isinstance(random_state, np.random.RandomState):
        return int(random_state.randint(2**31))
    if isinstance(random_state, np.random.Generator):
        return int(random_state.integers(2**32))
    seed = require_integer(op, "random_state", random_state)
    if seed < 0:
        raise ValueError(f"{op}: random_state must not be negative (got {seed})")
    return seed
