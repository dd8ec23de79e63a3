"""PyTorch's CPU threads."""

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import torch


class _Threads:
    """PyTorch's number of CPU threads, which is one for all: who leaves last restores what was there at first."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: list[int] = []
        self._before = 0

    def enter(self, count: int) -> None:
        with self._lock:
            if not self._counts:
                self._before = torch.get_num_threads()
            self._counts.append(count)
            torch.set_num_threads(count)

    def leave(self, count: int) -> None:
        with self._lock:
            self._counts.reverse()
            self._counts.remove(count)
            self._counts.reverse()
            torch.set_num_threads(self._counts[-1] if self._counts else self._before)


_THREADS = _Threads()


@contextmanager
def threads_each(count: int) -> Iterator[None]:
    """Keep each PyTorch operation on so many CPU threads, and restore their number afterwards."""
    _THREADS.enter(count)
    try:
        yield
    finally:
        _THREADS.leave(count)


def one_thread_each() -> AbstractContextManager[None]:
    """Keep each PyTorch operation on one CPU thread, and restore the number of threads afterwards.

    On small batches, the threads of one operation wait for each other longer than they work, and where another program
    takes a core they all wait for it. Whole batches side by side do not.
    """
    return threads_each(1)
