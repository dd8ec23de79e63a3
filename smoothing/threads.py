"""PyTorch's CPU threads."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def one_thread_each() -> Iterator[None]:
    """Keep each PyTorch operation on one CPU thread, and restore the number of threads afterwards.

    On small batches, the threads of one operation wait for each other longer than they work, and where another program
    takes a core they all wait for it. Whole batches side by side do not.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
