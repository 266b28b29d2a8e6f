"""Device memory: how much there is, who holds it, where it comes from, and how much of it scwarp may use.

scw.memory.configure(limit="20GB")          # an operation that needs more streams its matrix, or says so
scw.memory.info()["by_tag"]
with scw.memory.configured(managed=True):    # for one block of code
    ...
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from . import _core
from ._context import cupy_stream, is_cupy
from ._settings import parse_bytes, settings

_DEFAULTS: dict[str, Any] = {"pool": None, "managed": False, "limit": None, "allocator": "driver", "device": "cuda:0"}
_current: dict[str, dict[str, Any]] = {}
_cupy_before: list[Any] = []


def configure(
    pool: int | str | None = None,
    managed: bool = False,
    limit: int | str | None = None,
    allocator: str = "driver",
    *,
    device: str = "cuda:0",
) -> None:
    """Choose where scwarp's device memory comes from. What is held already stays where it is.

    Parameters
    ----------
    pool
        Take a pool of this size (bytes, or text such as ``"4GB"``) from the driver now, and never more. ``None``
        (default): the driver's own pool, which grows as needed and keeps what it has.
    managed
        Managed memory: may exceed the device, because the driver moves pages to the host and back. Slower. Not together
        with ``pool``.
    limit
        Most bytes that scwarp may hold at once; matrices on the host are then streamed in smaller blocks. ``None``: no
        limit.
    allocator
        ``"driver"``, or an outside allocator: ``"rmm"`` (RMM's resource of that device; needs CuPy too) or ``"cupy"``
        (CuPy's current allocator).
    device
        Which device.
    """
    if pool is not None and managed:
        raise ValueError(
            "memory.configure: pool and managed exclude each other: a pool keeps its pages on the device, "
            "managed memory moves them to the host"
        )
    if allocator not in ("driver", "rmm", "cupy"):
        raise ValueError(f"memory.configure: allocator must be 'driver', 'rmm' or 'cupy' (got {allocator!r})")
    if allocator != "driver" and (pool is not None or managed):
        raise ValueError(f"memory.configure: pool and managed are for allocator='driver' (got {allocator!r})")
    pool_bytes = 0 if pool is None else parse_bytes(pool)
    limit_bytes = 0 if limit is None else parse_bytes(limit)
    _require(device)
    asked = {"pool": pool, "managed": managed, "limit": limit, "allocator": allocator, "device": device}
    before = _current.get(device, _DEFAULTS | {"device": device})
    if any(asked[key] != before[key] for key in ("pool", "managed", "allocator")):
        _core.memory.release(device)
        if allocator == "rmm":
            _core.memory.use_functions(device, *_rmm_functions(device))
        elif allocator == "cupy":
            _core.memory.use_functions(device, *_cupy_functions(device))
        else:
            _core.memory.use_driver(device, pool_bytes, managed)
    _core.memory.set_limit(device, limit_bytes)
    _current[device] = asked


@contextmanager
def configured(**options: Any) -> Iterator[None]:
    """:func:`configure` for a ``with`` block; options that are not given keep their value."""
    device = options.get("device", "cuda:0")
    before = _current.get(device, _DEFAULTS | {"device": device})
    configure(**{**before, **options})
    try:
        yield
    finally:
        configure(**before)


def info(device: str = "cuda:0") -> dict[str, Any]:
    """Bytes of device memory, as a dict.

    ``total``, ``free`` (for scwarp: on the device, or held by its pool and not used; what is left of a pool with a
    size), ``pool_held``, ``pool_used``, ``pinned`` (page-locked host memory of the transfer ring), ``used`` (by scwarp
    now), ``peak`` (since the last operation began), ``limit`` (0: none), ``by_tag`` (``used`` by purpose), ``cache``
    (device copies of results in host slots: ``bytes``, ``entries``, ``hits``; ``uploads`` and ``uploaded_bytes`` of
    arguments since the start).
    ``device="cpu"``: scwarp's host buffers.
    """
    if device != "cpu":
        _require(device)
    return dict(_core.memory.info(device))


def free(device: str = "cuda:0") -> None:
    """Forget the device copies of host slots and give all unused memory back to the driver."""
    if device != "cpu":
        _require(device)
    _core.memory.release(device)


def estimate(
    adata: Any,
    op: str | None = None,
    *,
    device: str | None = None,
    layer: str | None = None,
    n_threads: int | None = None,
    **sizes: Any,
) -> dict[str, int]:
    """Peak memory in bytes, before anything runs; needs no device.

    Parameters
    ----------
    op
        ``None``: every step of the main job (as ``scwarp run --plan`` prints), matrix included, as ``{step: bytes}``.
        A name such as ``"pp.pca"``: ``{"peak": ..., "kept": ...}`` of that operation beyond the matrix and other
        arguments; ``kept`` is its result, 0 where that is on the host while the operation works on a device.
    device
        ``"cpu"`` or ``"cuda"``; default ``settings.device`` (``"auto"``: the CPU unless there is a device).
    layer
        Of which matrix; default ``X``.
    sizes
        What the figure depends on besides the shape, e.g. ``n_comps`` (``pp.pca``), ``n_neighbors``
        (``pp.neighbors``, whose matrix is the representation), ``n_groups`` and ``method``
        (``tl.rank_genes_groups``), ``n_batches`` and ``flavor`` (``pp.highly_variable_genes``), ``kept_rows``,
        ``kept_cols`` and ``kept_values`` (``pp.subset``), ``n_keys`` (``pp.regress_out``).

    Notes
    -----
    Never below what the operation takes, and at most 10 % (and 2 MiB) above, except where the size depends on more than
    the shape: ``tl.leiden`` takes it that no edge disappears inside the communities of the first level.

    A matrix on disk (``read_h5ad(..., backed="r")``) is read in blocks of ``settings.block_bytes`` (256 MiB), which
    count as well, full ones on the CPU. Operations that wait until the matrix is read take nothing there.

    A matrix on the host with ``device="cuda"``: what is on the device counts. That is two blocks of
    ``settings.block_bytes`` (256 MiB, and at most an eighth of what is left of the ``limit`` of :func:`configure`) of a
    matrix that streams, rows about equally long; all of one that operations with several passes take there, because
    half of the free memory holds it. These figures of blocks are not compared with measured peaks as the others are.
    """
    from ._context import choose_device
    from ._matrix import is_sparse
    from ._on_disk import as_on_disk

    x = adata.X if layer is None else adata.layers[layer]
    on_disk = as_on_disk(x, "memory.estimate")
    n, m = x.shape
    if on_disk is not None:
        x, sparse, nnz = on_disk, on_disk.is_sparse, on_disk.n_entries
    else:
        sparse = is_sparse(x)
        nnz = int(x.nnz) if sparse else n * m
    where = device or choose_device("pp.log1p")
    size = max(4, x.dtype.itemsize) if x.dtype.kind == "f" else 4
    threads = n_threads or settings.n_threads or _core.available_threads()
    if op is not None:
        in_file, block_bytes, limit, uploaded = on_disk is not None, settings.block_bytes or 0, 0, 0
        if where != "cpu":
            in_file, limit, uploaded = _on_device(
                op, x, where, nnz * (4 + size) + 8 * (n + 1) if sparse else n * m * size
            )
        peak, kept = _core.memory.estimate(
            op, where, threads, n, m, nnz, size, sparse, sizes, in_file, block_bytes, limit
        )
        peak += uploaded
        if in_file and where == "cpu":
            if _waits(op, sizes):
                return {"peak": 0, "kept": 0}
            if "keep" in x.pending:  # what is left of a block, beside it
                peak += min(block_bytes or 256 << 20, x.nbytes)
            if x.dtype.kind in "iu" and x.dtype.itemsize >= 4:  # whether float holds the values is looked up first
                peak = max(peak, 4 * min(nnz, 1 << 24))
        return {"peak": peak, "kept": kept}
    if sizes:
        raise TypeError(f"memory.estimate: {next(iter(sizes))!r} is for one operation: give op")
    limit = 0 if where == "cpu" else _limit_of(where)
    return {name: peak for name, _, peak in _core.memory.plan(n, m, nnz, size, sparse, threads, where, limit)}


_ONE_PASS = (
    "pp.normalize_total",
    "pp.log1p",
    "pp.sqrt",
    "pp.scale",
    "pp.regress_out",
    "pp.normalize_pearson_residuals",
)
_GRAPHS = ("pp.neighbors", "tl.leiden", "tl.umap")


def _limit_of(device: str) -> int:
    asked = _current.get(device if ":" in device else "cuda:0", _DEFAULTS)["limit"]
    return 0 if asked is None else parse_bytes(asked)


def _on_device(op: str, x: Any, where: str, size: int) -> tuple[bool, int, int]:
    """Whether the matrix streams to the device, the limit there, and what of the matrix is uploaded."""
    from ._on_disk import is_on_disk

    device, limit = where if ":" in where else "cuda:0", _limit_of(where)
    if is_cupy(x) or op == "pp.subset":
        return False, limit, 0
    if op in _GRAPHS:
        return False, limit, size
    free = limit
    if not free and not _core.unavailable_reason(device):
        free = info(device)["free"]
    uploads = op not in _ONE_PASS and not is_on_disk(x) and not settings.block_bytes
    if uploads and (not free or size < free / 2):
        return False, limit, size
    return True, limit, 0


def _waits(op: str, sizes: dict[str, Any]) -> bool:
    """Whether an operation on a matrix on disk is done when the matrix is read."""
    if op == "pp.normalize_total":
        return bool(sizes.get("target_sum")) and not sizes.get("exclude_highly_expressed")
    return op in ("pp.log1p", "pp.sqrt", "pp.subset")


def share_with_cupy(on: bool = True, *, device: str = "cuda:0") -> None:
    """Make CuPy allocate from scwarp's pool, so that there is one pool and one limit. ``False``: as before.

    CuPy's arrays then appear in ``info()["by_tag"]["cupy"]``.
    """
    import cupy

    if not on:
        if _cupy_before:
            cupy.cuda.set_allocator(_cupy_before.pop())
        return
    if _cupy_before:
        return
    if _current.get(device, _DEFAULTS)["allocator"] == "cupy":
        raise ValueError(
            "memory.share_with_cupy: scwarp allocates from CuPy (allocator='cupy'): it cannot also be the source"
        )
    _require(device)
    held: dict[int, tuple[int, Any]] = {}  # with the stream, which has to be there when its memory is given back

    def malloc(size: int, device_id: int) -> int:
        if size == 0:
            return 0
        stream = cupy_stream("memory.share_with_cupy", device_id)
        address = _core.memory.allocate(f"cuda:{device_id}", size, stream.ptr, "cupy")
        held[address] = (size, stream)
        return address

    def release(address: int, device_id: int) -> None:
        if address:
            size, stream = held.pop(address)
            _core.memory.deallocate(f"cuda:{device_id}", address, size, stream.ptr)

    _cupy_before.append(cupy.cuda.get_allocator())
    cupy.cuda.set_allocator(cupy.cuda.PythonFunctionAllocator(malloc, release).malloc)


def _require(device: str) -> None:
    reason = _core.unavailable_reason(device)
    if reason:
        raise _core.BackendUnavailable(f"memory: device={device!r} cannot be used: {reason}")


def _index(device: str) -> int:
    return int(device.partition(":")[2] or 0)


def _rmm_functions(device: str) -> tuple[Any, Any]:
    try:
        import rmm
    except ImportError:
        raise ImportError("memory.configure: allocator='rmm' needs the package rmm (pip install rmm-cu13)") from None
    import cupy

    held: dict[int, Any] = {}
    index = _index(device)

    def allocate(size: int, stream: int) -> int:
        with cupy.cuda.Device(index):  # RMM's resource is that of the current device
            buffer = rmm.DeviceBuffer(size=size, stream=_rmm_stream(rmm, stream))
        held[int(buffer.ptr)] = buffer
        return int(buffer.ptr)

    def deallocate(address: int, size: int, stream: int) -> None:
        del held[address]

    return allocate, deallocate


def _rmm_stream(rmm: Any, stream: int) -> Any:
    from rmm.pylibrmm.stream import DEFAULT_STREAM, Stream

    if stream == 0:
        return DEFAULT_STREAM
    import cupy

    return Stream(obj=cupy.cuda.ExternalStream(stream))


def _cupy_functions(device: str) -> tuple[Any, Any]:
    import cupy

    held: dict[int, Any] = {}
    index = _index(device)

    def allocate(size: int, stream: int) -> int:
        with cupy.cuda.Device(index), cupy.cuda.ExternalStream(stream):
            try:
                memory = cupy.cuda.alloc(size)
            except cupy.cuda.memory.OutOfMemoryError as e:
                raise MemoryError(str(e)) from None
        held[memory.ptr] = memory
        return int(memory.ptr)

    def deallocate(address: int, size: int, stream: int) -> None:
        del held[address]

    return allocate, deallocate
