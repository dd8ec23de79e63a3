"""PyTorch's CPU threads."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import torch


@contextmanager
def threads_each(count: int) -> Iterator[None]:
    """Keep each PyTorch operation on so many CPU threads, and restore their number afterwards."""
    threads = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def one_thread_each() -> AbstractContextManager[None]:
    """Keep each PyTorch operation on one CPU thread, and restore the number of threads afterwards.

    On small batches, the threads of one operation wait for each other longer than they work, and where another program
    takes a core they all wait for it. Whole batches side by side do not.
    """
    return threads_each(1)
