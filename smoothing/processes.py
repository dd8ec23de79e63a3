"""The processes that share the work, as torchrun or accelerate launch started them."""

import atexit
import os
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from accelerate import PartialState


def processes(device: str = "auto") -> "PartialState":
    """Return Accelerate's state: rank, number of processes, waiting; one process where there was no launcher.

    On several processes without CUDA, Accelerate has to be told that they run on CPUs, and by the first who asks.
    """
    from accelerate import PartialState  # takes seconds to import

    launched = int(os.environ.get("WORLD_SIZE", "1")) > 1
    state = PartialState(cpu=device == "cpu" or (launched and not torch.cuda.is_available()))
    if launched:
        atexit.unregister(_leave)
        atexit.register(_leave)
    return state


def _leave() -> None:
    """Let the group go before the interpreter does: its threads, still running then, would abort the process."""
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
