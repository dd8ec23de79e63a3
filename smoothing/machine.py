"""Where models run and on how many images, and the threads and processes that share the work."""

import atexit
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import torch

from smoothing.forward import reason

if TYPE_CHECKING:
    from accelerate import PartialState


#: Workers of an accelerator: one fills a batch while another's is computed. More would only need more memory.
ACCELERATOR_WORKERS = 2


def default_device() -> torch.device:
    """Return what "auto" means everywhere: the current CUDA device where there is one, else the CPU."""
    return usable_device("cuda" if torch.cuda.is_available() else "cpu")


def usable_device(device: str | torch.device) -> torch.device:
    """Return a device on which a tensor can be made now, with its index; "auto" is the default one.

    Without an index, "cuda" would mean whatever device is current in the thread that uses it.

    Raises
    ------
    ValueError
        Where no tensor can be made there; the message gives the reason.
    """
    if device == "auto":
        return default_device()
    try:
        chosen = torch.device(device)
        torch.empty(1, device=chosen).cpu()
        if str(chosen) in ("cuda", "xpu"):
            chosen = torch.device(chosen.type, _module(chosen).current_device())
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ValueError(f"device = {str(device)!r} cannot be used ({reason(error)}); try 'cpu'") from error
    return chosen


def current(device: torch.device) -> AbstractContextManager[Any]:
    """Make a device the current one of this thread, for as long as the context lasts: threads begin with device 0."""
    found: AbstractContextManager[Any] = (
        _module(device).device(device) if device.type in ("cuda", "xpu") else nullcontext()
    )
    return found


def default_workers(device: torch.device) -> int:
    """Return how many batches are worked on at the same time."""
    return min(torch.get_num_threads(), 8 if device.type == "cpu" else ACCELERATOR_WORKERS)


def widest_float(device: torch.device) -> torch.dtype:
    """Return float64, or float32 on devices that do not have it."""
    return torch.float32 if device.type == "mps" else torch.float64


def out_of_memory(error: BaseException | None) -> bool:
    """Whether a device's memory was too small, also where PyTorch has no type of its own for that, as on MPS.

    An error that says so of another one, its cause, counts.
    """
    if isinstance(error, ValueError):
        error = error.__cause__
    return isinstance(error, torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError)
        and any(words in reason(error).lower() for words in ("out of memory", "can't allocate memory"))
    )


def free_memory(device: torch.device) -> int | None:
    """Return the bytes that are free on a device, what PyTorch keeps for itself counted in; None where unknown."""
    if device.type != "cuda":
        return None
    kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(torch.cuda.mem_get_info(device)[0]) + kept


def peak_memory(run: Callable[[], object], device: torch.device) -> int:
    """Return the bytes that a call takes on a device at most, beyond what is held; 0 where unknown."""
    if device.type != "cuda":
        run()
        return 0
    held = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    run()
    return int(torch.cuda.max_memory_allocated(device)) - held


def empty_cache(device: torch.device) -> None:
    """Give back the memory that PyTorch keeps for itself."""
    if device.type in ("cuda", "xpu", "mps"):
        _module(device).empty_cache()


def _module(device: torch.device) -> Any:
    """Return PyTorch's module for a kind of device, such as `torch.cuda`."""
    return getattr(torch, device.type)


class _ThreadsEach:
    """How many CPU threads a PyTorch operation has: one number for the process, which several threads may ask for."""

    def __init__(self) -> None:
        self._free = threading.Lock()
        self._before = 0
        self._asked: dict[object, int] = {}  # in the order in which they came

    @contextmanager
    def of(self, count: int) -> Iterator[None]:
        """Set the number, and put back what was set before once the last that asked for one has left."""
        key = object()
        with self._free:
            if not self._asked:
                self._before = torch.get_num_threads()
            self._asked[key] = count
            torch.set_num_threads(count)
        try:
            yield
        finally:
            with self._free:
                del self._asked[key]
                torch.set_num_threads(next(reversed(self._asked.values()), self._before))


_THREADS_EACH = _ThreadsEach()


def threads_each(count: int) -> AbstractContextManager[None]:
    """Keep each PyTorch operation on so many CPU threads, and restore their number afterwards.

    Where several threads of this process do so at the same time, the last of them to leave restores it.
    """
    return _THREADS_EACH.of(count)


def one_thread_each() -> AbstractContextManager[None]:
    """Keep each PyTorch operation on one CPU thread, and restore the number of threads afterwards.

    On small batches, the threads of one operation wait for each other longer than they work, and where another program
    takes a core they all wait for it. Whole batches side by side do not.
    """
    return threads_each(1)


def processes(device: str = "auto") -> "PartialState":
    """Return Accelerate's state: rank, number of processes, waiting; one process where there was no launcher.

    "auto" is what it is in `devices.default_device`: CUDA or the CPU; Accelerate alone would take others too. On
    several processes without CUDA, it has to be told that they run on CPUs, and by the first who asks.
    """
    from accelerate import PartialState  # takes seconds to import

    launched = int(os.environ.get("WORLD_SIZE", "1")) > 1
    free = device != "auto" and not launched  # to name another kind of device
    state = PartialState(cpu=device == "cpu" or not (free or torch.cuda.is_available()))
    if launched:
        atexit.unregister(_leave)
        atexit.register(_leave)
    return state


def _leave() -> None:
    """Let the group go before the interpreter does: its threads, still running then, would abort the process."""
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
