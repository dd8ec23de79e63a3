"""Tables that the samplers need on a device: of all levels at once, in types that every device has.

Words are signed there: a word minus 2**63, which keeps the order. The discrete sampler's search begins at the cells of
the quantile's table, because few thresholds lie in any of them, in the tails too.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float32, Int32, Int64, UInt64
from torch import Tensor

from smoothing._voting.discrete import TOP, noise_table
from smoothing._voting.quantile import CELL_BITS, SCALE_BITS, coefficients, split_sigma

#: Cells of one half of all words.
CELLS = 64 << CELL_BITS

SIGN = np.uint64(2**63)


class DiscreteTables(NamedTuple):
    """Thresholds of all levels, one level after the other.

    Attributes
    ----------
    thresholds : int64 array of shape (t,)
        Each level's thresholds minus 2**63, then as many numbers above all words as a search may look at.
    first : int32 array of shape (levels, 2 * CELLS)
        For every cell of words, of the lower half and then of the upper, the place in `thresholds` where to begin.
    shift : int64 array of shape (levels,)
        What turns the place at which a search ends, plus the pixel's value, into a place in `grey`.
    grey : float32 array of shape (values,)
        float32(value) / float32(255): a table, because compilers divide by a constant in more than one way.
    steps : int
        A search halves its interval so many times.
    """

    thresholds: Int64[np.ndarray, " t"]
    first: Int32[np.ndarray, "levels cells"]
    shift: Int64[np.ndarray, " levels"]
    grey: Float32[np.ndarray, " values"]
    steps: int


class GaussianTables(NamedTuple):
    """The quantile's parabolas and the levels' factors.

    Attributes
    ----------
    coefficients : int64 array of shape (3, CELLS)
    factor : int64 array of shape (levels,)
        sigma as an integer.
    unit : float32 array of shape (levels,)
        What a number times `factor` is in units of, a power of two.
    """

    coefficients: Int64[np.ndarray, "3 cells"]
    factor: Int64[np.ndarray, " levels"]
    unit: Float32[np.ndarray, " levels"]


@functools.lru_cache(maxsize=64)
def tables_on_device(sampler: str, sigmas: tuple[float, ...], device: torch.device) -> tuple[Tensor | int, ...]:
    """Return a sampler's tables for some noise levels, with tensors on the device for arrays, made once."""
    tables = discrete_tables(sigmas) if sampler == "discrete" else gaussian_tables(sigmas)
    there = tuple(on_device(table, device) if isinstance(table, np.ndarray) else table for table in tables)
    if device.type == "cuda":
        torch.cuda.synchronize(device)  # whoever takes them next may do so on another of the device's streams
    return there


def gaussian_tables(sigmas: Sequence[float]) -> GaussianTables:
    """Return the tables of some noise levels."""
    split = [split_sigma(sigma) for sigma in sigmas]
    return GaussianTables(
        np.ascontiguousarray(coefficients().T),
        np.array([m for m, _ in split], np.int64),
        np.array([2.0 ** -(SCALE_BITS + exponent) for _, exponent in split], np.float32),
    )


def discrete_tables(sigmas: Sequence[float]) -> DiscreteTables:
    """Return the tables of some noise levels."""
    tables, searches = [noise_table(sigma) for sigma in sigmas], [_search(sigma) for sigma in sigmas]
    steps = max(most for _, most in searches).bit_length()
    beyond = np.full(2**steps, 2**63 - 1, np.int64)
    parts = [np.append((table.thresholds ^ SIGN).view(np.int64), beyond) for table in tables]
    begins = np.cumsum([0] + [len(part) for part in parts[:-1]])
    least = min(table.lowest for table in tables)
    largest = max(table.lowest + len(table.thresholds) for table in tables) + TOP
    return DiscreteTables(
        np.concatenate(parts),
        np.stack([first + begin for (first, _), begin in zip(searches, begins, strict=True)]).astype(np.int32),
        np.array([table.lowest - least - begin for table, begin in zip(tables, begins, strict=True)], np.int64),
        np.arange(least, largest + 1).astype(np.float32) / np.float32(TOP),
        steps,
    )


def on_device(array: np.ndarray, device: torch.device) -> Tensor:
    """Return a copy on the device, which the CPU does not wait for where it need not."""
    tensor = torch.from_numpy(array)
    if device.type == "cuda":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True, copy=True)


@functools.lru_cache(maxsize=128)
def _search(sigma: float) -> tuple[Int64[np.ndarray, " cells"], int]:
    """Return where to begin for the words of each cell, and how many thresholds a word may have to pass from there."""
    thresholds = noise_table(sigma).thresholds
    start, stop = _cell_bounds()
    lowest = np.concatenate([start, ~(stop - np.uint64(1))])
    highest = np.concatenate([stop - np.uint64(1), ~start])
    first = np.searchsorted(thresholds, lowest)
    return first, int(np.max(np.searchsorted(thresholds, highest) - first))


@functools.cache
def _cell_bounds() -> tuple[UInt64[np.ndarray, " cells"], UInt64[np.ndarray, " cells"]]:
    """Return the first word of each cell of the lower half, and the first beyond it: the same where it is empty."""
    leading = 2**CELL_BITS + np.arange(2**CELL_BITS, dtype=np.uint64)
    length = np.arange(63, -1, -1)[:, None]  # bits of the word
    coarse = np.uint64(CELL_BITS) - np.minimum(length, CELL_BITS).astype(np.uint64)
    fine = np.maximum(length - CELL_BITS, 0).astype(np.uint64)
    tail = np.where(
        length >= CELL_BITS, leading << fine, (leading + (np.uint64(1) << coarse) - np.uint64(1)) >> coarse
    )  # the smallest 2 w + 1 that is not below the cell
    start = tail >> np.uint64(1)
    beyond = np.append(start[:, 1:], np.append(np.uint64(2**63), start[:-1, 0])[:, None], axis=1)
    return start.ravel(), beyond.ravel()
