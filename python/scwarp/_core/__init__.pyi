from . import datasets as datasets
from . import get as get
from . import io as io
from . import memory as memory
from . import pp as pp
from . import tl as tl

class Context:
    def __init__(
        self,
        device: str,
        n_threads: int,
        seed: int,
        stream: int,
        log: object | None,
        progress: object | None,
        host_data: bool = False,
        block_bytes: int = 0,
        stream_owner: object | None = None,
    ) -> None: ...
    @property
    def device(self) -> str: ...
    @property
    def n_threads(self) -> int: ...

def available_threads() -> int: ...
def unavailable_reason(device: str) -> str: ...
def set_memory_limit(limit_bytes: int) -> None: ...
def reset_memory_peak() -> None: ...
def supports(op: str, device: str) -> bool: ...
def kernels(op: str, device: str) -> tuple[int, int]:
    """
    (kernels of the operation and of those it is built on that `device` has, kernels there are)
    """

__version__: str

class DataError(ValueError): ...
class BackendUnavailable(RuntimeError): ...
