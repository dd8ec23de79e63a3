"""The processes that share the work, as torchrun or accelerate launch started them."""

import atexit
import os
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from accelerate import PartialState


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
