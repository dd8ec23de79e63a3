"""Where models run and on how many images, and the threads and processes that share the work."""

import atexit
import gc
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from importlib import import_module
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


class _Limits:
    """The numbers of threads that are asked for now, by thread of the asker, and the number before the first."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.held: list[tuple[int, int]] = []
        self.before = 1


_LIMITS = _Limits()


@contextmanager
def threads_each(count: int) -> Iterator[None]:
    """Keep each PyTorch operation on so many CPU threads, and restore their number afterwards.

    PyTorch keeps the number of a thread, and another that threads take when they first compute. Where several threads
    of the caller ask at the same time, each gets its own number back as it leaves, and new threads get the number
    before the first when the last one leaves.
    """
    asked = threading.get_ident(), count
    with _LIMITS.lock:
        if not _LIMITS.held:
            _LIMITS.before = torch.get_num_threads()
        nested = any(thread == asked[0] for thread, _ in _LIMITS.held)
        before = torch.get_num_threads() if nested else _LIMITS.before
        _LIMITS.held.append(asked)
        torch.set_num_threads(count)
    try:
        yield
    finally:
        with _LIMITS.lock:
            _LIMITS.held.remove(asked)
            torch.set_num_threads(before)
            if _LIMITS.held:
                new_threads = threading.Thread(target=torch.set_num_threads, args=(_LIMITS.held[-1][1],))
                new_threads.start()
                new_threads.join()


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
    if launched:
        # Where this is imported once there is a group, defaults of its functions keep the group alive for ever.
        import_module("torch.distributed.nn.functional")
    free = device != "auto" and not launched  # to name another kind of device
    state = PartialState(cpu=device == "cpu" or not (free or torch.cuda.is_available()))
    if launched:
        atexit.unregister(_leave)
        atexit.register(_leave)
    return state


def _leave() -> None:
    """Let the group go before the interpreter does: its threads, still running then, can abort the process.

    The group ends with the last object that holds it. Models that are shared among processes do, in reference cycles.
    """
    if torch.distributed.is_initialized():
        gc.collect()
        torch.distributed.destroy_process_group()
