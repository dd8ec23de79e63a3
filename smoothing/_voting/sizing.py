"""How many noisy images make a pass: what was asked for, what is fastest on this CPU, or what fits into memory."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial

import torch

from smoothing.machine import empty_cache, free_memory, out_of_memory, peak_memory

#: Most noisy images in a pass.
MOST_BATCH = 2048

#: Before anything is known about images and model.
CPU_BATCH = 128

#: The part of an accelerator's free memory that batches may take; the rest is lost to fragments.
SHARE = 0.8

#: Numbers in the noisy images of the smallest and the largest batches that are tried on a CPU.
_LEAST_NUMBERS, _MOST_NUMBERS = 2**16, 2**20

#: A pass of so many seconds gains nothing from being longer.
_LONG = 0.1

#: A larger batch must be faster by so much to be taken.
_WORTH = 0.97

Shape = tuple[int, ...]


class BatchSize:
    """The size of the batches for each shape of images, found once for each.

    Parameters
    ----------
    given : int or None
        What was asked for; it is kept, whatever is faster or fits.
    device : torch.device
    workers : int
        Passes at the same time.
    timed : bool
        On CPUs, try some sizes. Compiled models would be compiled for each; they get a guess.
    """

    def __init__(self, given: int | None, device: torch.device, workers: int, *, timed: bool) -> None:
        self.given, self.device, self.workers, self.timed = given, device, workers, timed
        self._found: dict[Shape, int] = {}

    @property
    def latest(self) -> int:
        """The size for the shape that was asked for last; a guess before the first."""
        if self.given is not None:
            return self.given
        guess = CPU_BATCH if self.device.type == "cpu" else MOST_BATCH
        return next(reversed(self._found.values()), guess)

    def of(self, shape: Shape, run: Callable[[int], object]) -> int:
        """Return the size for images of shape (C, H, W); `run(size)` makes a pass of so many.

        What is wrong with a model is not said here, but by its first votes.
        """
        if self.given is not None:
            return self.given
        if shape not in self._found:
            size = CPU_BATCH if self.device.type == "cpu" else MOST_BATCH
            with suppress(Exception):
                size = self._find(shape, run)
            self._found[shape] = size
        return self._found[shape]

    def _find(self, shape: Shape, run: Callable[[int], object]) -> int:
        if self.device.type != "cpu":
            return fitting(run, self.device, self.workers, MOST_BATCH)
        return fastest(run, candidates(shape)) if self.timed else _guess(shape)

    def halve(self, shape: Shape) -> bool:
        """Make the batches for a shape half as large, after a lack of memory; False where that cannot be."""
        size = self._found.get(shape, 1)
        if self.given is not None or size == 1:
            return False
        self._found[shape] = size // 2
        empty_cache(self.device)
        return True


def candidates(shape: Shape) -> Iterator[int]:
    """Yield the sizes that are tried on a CPU for images of shape (C, H, W)."""
    pixels = math.prod(shape)
    size = _power(_LEAST_NUMBERS // pixels, 16, 128)
    most = _power(_MOST_NUMBERS // pixels, 32, MOST_BATCH)
    while size <= most:
        yield size
        size *= 2


def fastest(run: Callable[[int], object], sizes: Iterator[int]) -> int:
    """Return the size with the least time for an image; among sizes about as fast, the smallest.

    Parameters
    ----------
    run : callable
        Makes a pass of so many images.
    sizes : iterator of int
        Increasing. No more are tried once a pass takes long.
    """
    chosen, best = 0, math.inf
    for size in sizes:
        run(size)  # the first pass of a shape prepares the others
        seconds = min(_seconds(run, size) for _ in range(3))
        if seconds / size < _WORTH * best:
            chosen, best = size, seconds / size
        if seconds > _LONG:
            break
    return chosen


def fitting(run: Callable[[int], object], device: torch.device, workers: int, most: int) -> int:
    """Return the largest of most, most / 2, most / 4, ... images for which all workers' passes fit into memory.

    Parameters
    ----------
    run : callable
        Makes a pass of so many images.
    device : torch.device
    workers : int
        Passes at the same time.
    most : int

    Raises
    ------
    ValueError
        Where not even one image fits.
    """
    size = most
    while True:
        try:
            before = free_memory(device)
            peak = peak_memory(partial(run, size), device)
            if size == 1 or before is None or workers * peak <= SHARE * before:
                return size
        except Exception as error:
            if not out_of_memory(error):
                raise
            if size == 1:
                raise ValueError(f"device = {str(device)!r}: out of memory for a single image; try 'cpu'") from error
        size = max(1, size // 2)
        empty_cache(device)


def _guess(shape: Shape) -> int:
    """Return a size for images of shape (C, H, W) that was found good on CPUs."""
    return _power(2**18 // math.prod(shape), CPU_BATCH, 1024)


def _power(number: int, least: int, most: int) -> int:
    """Return the largest power of two up to a number, within bounds that are powers of two."""
    return min(max(1 << max(number, 1).bit_length() - 1, least), most)


def _seconds(run: Callable[[int], object], size: int) -> float:
    began = time.perf_counter()
    run(size)
    return time.perf_counter() - began
