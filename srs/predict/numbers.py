"""Numbers that name noise within a seed: nobody gets one twice."""

import os
import threading

import numpy as np
from jaxtyping import Int64

#: Images have numbers below this (`smoothing`, its named noise streams).
MOST = 2**32


class Numbers:
    """Numbers 0, 1, ... for the threads of one process; copies of what holds them share them."""

    def __init__(self) -> None:
        self._next, self._counting, self._process = 0, threading.Lock(), os.getpid()

    def take(self, m: int) -> Int64[np.ndarray, " m"]:
        """Take the next m numbers, which nobody else gets.

        Raises
        ------
        RuntimeError
            Where there are no more, and in a process that was forked from the one that has them: both would draw the
            same noise.
        """
        if os.getpid() != self._process:
            raise RuntimeError("the classifier was loaded before this process was forked: load it again in here")
        with self._counting:
            first = self._next
            if first + m > MOST:
                raise RuntimeError(
                    f"{MOST:,} images were asked about: go on with another seed, so that no noise is reused"
                )
            self._next += m
        return np.arange(first, first + m)
