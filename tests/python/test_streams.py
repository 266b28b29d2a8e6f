"""Which of CuPy's streams and devices the calls use. A stand-in takes CuPy's place: no device is needed."""

from __future__ import annotations

import gc
import sys
import weakref
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import scwarp as scw
from scwarp import _context


class FakeStream:
    def __init__(self, ptr: int) -> None:
        self.ptr = ptr


class FakeCupy:
    """Two devices, the first of which is current, with a stream each."""

    def __init__(self) -> None:
        self.current = 0
        self.streams = {0: FakeStream(0x1000), 1: FakeStream(0x2000)}
        fake = self

        class Device:
            def __init__(self, index: int) -> None:
                self.id = index

            def __enter__(self) -> None:
                self.before, fake.current = fake.current, self.id

            def __exit__(self, *error: object) -> None:
                fake.current = self.before

        self.cuda = SimpleNamespace(
            Device=Device, get_current_stream=lambda device_id=-1: self.streams[self._index(device_id)]
        )

    def _index(self, device_id: int) -> int:
        return self.current if device_id == -1 else device_id

    def array(self, device_id: int) -> Any:
        made = type("ndarray", (), {"__module__": "cupy"})()
        made.device = SimpleNamespace(id=device_id)
        made.data = SimpleNamespace(ptr=0x5000)
        made.dtype, made.shape, made.nbytes, made.itemsize = np.dtype("uint8"), (3,), 3, 1
        made.flags = SimpleNamespace(f_contiguous=True, c_contiguous=True)
        return made

    @staticmethod
    def ascontiguousarray(x: Any) -> Any:
        return x

    @staticmethod
    def asarray(x: Any, order: str) -> Any:
        return x


@pytest.fixture
def cupy(monkeypatch: pytest.MonkeyPatch) -> FakeCupy:
    fake = FakeCupy()
    monkeypatch.setitem(sys.modules, "cupy", fake)
    return fake


@pytest.fixture
def contexts(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The contexts that are made, as (device, stream)."""
    made: list[Any] = []

    def record(device: str, n_threads: int, seed: int, stream: int, *rest: object, **more: object) -> Any:
        made.append((device, stream))
        return made[-1]

    monkeypatch.setattr(scw._core, "Context", record)
    monkeypatch.setattr(scw._core, "unavailable_reason", lambda device: "")
    monkeypatch.setattr(scw._core.get, "copy", lambda *arguments: None)
    monkeypatch.setattr(scw._core.get, "host_copy", lambda ctx, address, n, owner: np.zeros(n, np.uint8))
    return made


def sparse_of(x: Any) -> Any:
    made = type("csr_matrix", (), {"__module__": "cupyx.scipy.sparse"})()
    made.data, made.indptr = x, x
    return made


CALLS = {
    "operation": lambda x: _context.make_context(x, op="test"),
    "sparse operation": lambda x: _context.make_context(sparse_of(x), op="test"),
    "results on a device": lambda x: _context.device_context("test", f"cuda:{x.device.id}"),
    "to_host": _context.to_host,
    "X_to_CPU": scw.get.X_to_CPU,
}


@pytest.mark.parametrize("call", list(CALLS))
@pytest.mark.parametrize("device_id", [0, 1])
def test_the_stream_is_that_of_the_datas_device(call: str, device_id: int, cupy: FakeCupy, contexts: list[Any]) -> None:
    CALLS[call](cupy.array(device_id))
    assert contexts == [(f"cuda:{device_id}", cupy.streams[device_id].ptr)]


PER_THREAD = 2  # what cupy.cuda.Stream.ptds.ptr is: another stream in each thread


@pytest.mark.parametrize("call", list(CALLS))
def test_the_per_thread_default_stream_is_refused(call: str, cupy: FakeCupy, contexts: list[Any]) -> None:
    cupy.streams[1] = FakeStream(PER_THREAD)
    with pytest.raises(ValueError, match=r"per-thread default stream.*with cupy.cuda.Stream\(non_blocking=True\):"):
        CALLS[call](cupy.array(1))
    assert contexts == []
    CALLS[call](cupy.array(0))  # that of another device does not matter
    assert len(contexts) == 1


@pytest.mark.parametrize("stream", [0, 0x2000])
@pytest.mark.parametrize("device_id", [0, 1])
def test_rmm_allocates_on_the_device_that_was_asked_for(
    stream: int, device_id: int, cupy: FakeCupy, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Any] = []

    class DeviceBuffer:
        def __init__(self, *, size: int, stream: Any) -> None:
            self.ptr = 0x7000
            made.append((cupy.current, size, stream))

    cupy.cuda.ExternalStream = lambda ptr: ptr
    streams = SimpleNamespace(DEFAULT_STREAM=0, Stream=lambda obj: obj)
    monkeypatch.setitem(sys.modules, "rmm", SimpleNamespace(DeviceBuffer=DeviceBuffer))
    monkeypatch.setitem(sys.modules, "rmm.pylibrmm", SimpleNamespace(stream=streams))
    monkeypatch.setitem(sys.modules, "rmm.pylibrmm.stream", streams)
    allocate, deallocate = scw.memory._rmm_functions(f"cuda:{device_id}")
    assert allocate(100, stream) == 0x7000
    deallocate(0x7000, 100, stream)
    assert made == [(device_id, 100, stream)] and cupy.current == 0


def test_a_result_keeps_the_stream_it_is_freed_in() -> None:
    stream = FakeStream(0)
    alive = weakref.ref(stream)
    ctx = scw._core.Context("cpu", 1, 0, 0, None, None, stream_owner=stream)
    rows = scw._core.pp.subset(ctx, np.arange(6, dtype=np.float32).reshape(3, 2), np.array([1, 0, 1], np.uint8), None)
    del stream, ctx
    gc.collect()
    assert alive() is not None
    np.testing.assert_array_equal(rows, [[0, 1], [4, 5]])
    del rows
    gc.collect()
    assert alive() is None


def test_a_context_gives_its_stream_up() -> None:
    stream = FakeStream(0)
    alive = weakref.ref(stream)
    ctx = scw._core.Context("cpu", 1, 0, 0, None, None, stream_owner=stream)
    del stream
    assert ctx.device == "cpu" and alive() is not None
    del ctx
    gc.collect()
    assert alive() is None


def test_contexts_are_given_the_owner(cupy: FakeCupy, contexts: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    owners: list[Any] = []
    monkeypatch.setattr(scw._core, "Context", lambda *_, stream_owner=None, **__: owners.append(stream_owner))
    for call in CALLS.values():
        call(cupy.array(1))
    assert owners == [cupy.streams[1]] * len(CALLS)
    _context.make_context(np.zeros(3), op="pp.log1p", device="cpu")
    assert owners[-1] is None


def test_memory_for_cupy_keeps_the_stream_it_is_freed_in(cupy: FakeCupy, monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[Any] = []
    current: list[Any] = [None]
    cupy.cuda.get_allocator = lambda: None
    cupy.cuda.set_allocator = lambda allocator: current.__setitem__(0, allocator)
    cupy.cuda.PythonFunctionAllocator = lambda malloc, free: SimpleNamespace(malloc=(malloc, free))
    monkeypatch.setattr(scw._core, "unavailable_reason", lambda device: "")
    monkeypatch.setattr(scw._core.memory, "allocate", lambda *a: used.append(a) or 0x9000)
    monkeypatch.setattr(scw._core.memory, "deallocate", lambda *a: used.append(a))
    scw.memory.share_with_cupy()
    try:
        malloc, free = current[0]
        alive = weakref.ref(cupy.streams[1])
        address = malloc(100, 1)
        cupy.streams[1] = FakeStream(0x3000)
        gc.collect()
        assert alive() is not None
        free(address, 1)
        gc.collect()
        assert alive() is None
        assert used == [("cuda:1", 100, 0x2000, "cupy"), ("cuda:1", 0x9000, 100, 0x2000)]
    finally:
        scw.memory.share_with_cupy(False)
