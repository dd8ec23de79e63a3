"""Reading ahead: a thread makes ready what comes next while the caller works on what it has."""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

#: Parts that are made ready while the caller works.
AHEAD = 2

_Part = TypeVar("_Part")
_Read = TypeVar("_Read")


def ahead(read: Callable[[_Part], _Read], parts: Iterable[_Part]) -> Generator[_Read, None, None]:
    """Give what `read` returns for each part, in order; one thread is up to `AHEAD` parts ahead of the caller.

    What `read` raises is raised where the part's turn has come. However the caller ends, the thread has ended before.
    """
    pool = ThreadPoolExecutor(1, thread_name_prefix="ahead")
    try:
        waiting: deque[Future[_Read]] = deque()
        for part in parts:
            waiting.append(pool.submit(read, part))
            if len(waiting) > AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
