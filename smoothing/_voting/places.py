"""Where every sample of a pass sits: in which batch, and at which place there.

The places are fixed by the images, levels and samples that are asked for and by the size of the batches. They do not
depend on which worker is faster. So also a device whose kernels round differently at different places of a batch gives
the same votes when it is asked again.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int64

from smoothing._voting.noise import BLOCK

#: Share of a batch that must be used; otherwise the samples that are left go through smaller batches.
USED = 0.9

#: Batches are not made smaller than this to use more of them: each costs a pass of its own.
SMALLEST = 32


@dataclass(frozen=True)
class Piece:
    """Samples `first` to `first + count - 1` of a row at a level, at places `at` and after of one batch.

    They belong to one block. `drawn` are the samples whose random numbers are drawn together: the whole segment where
    other levels use the same numbers, else the samples of the piece.
    """

    row: int
    level: int
    first: int
    count: int
    at: int
    drawn: range


@dataclass(frozen=True, eq=False)
class Batch:
    """Places `begin` to `end` - 1 of a pass, in a batch of `size`; places beyond the last sample are not counted."""

    begin: int
    end: int
    size: int


@dataclass(frozen=True, eq=False)
class Segments:
    """The samples of a pass in their order: row by row, block by block, level by level.

    Attributes
    ----------
    row, level, first : int arrays of shape (s,)
        Each segment's image, level, and first sample.
    offset : int array of shape (s + 1,)
        Where the segments begin, and where the last one ends.
    shared : bool array of shape (s,)
        Whether other levels of the row use the same block, and so the same random numbers.
    """

    row: Int64[np.ndarray, " s"]
    level: Int64[np.ndarray, " s"]
    first: Int64[np.ndarray, " s"]
    offset: Int64[np.ndarray, " s+1"]
    shared: Bool[np.ndarray, " s"]

    @classmethod
    def of(cls, wanted: Bool[np.ndarray, "n k"], start: int, stop: int) -> "Segments":
        """Return the segments of samples `start` to `stop` - 1 of the wanted rows and levels."""
        edges = np.array(sorted({start, stop, *range(-(-start // BLOCK) * BLOCK, stop, BLOCK)}))
        rows, levels = np.nonzero(wanted)
        blocks = len(edges) - 1
        row, level = np.repeat(rows, blocks), np.repeat(levels, blocks)
        block = np.tile(np.arange(blocks), len(rows))
        order = np.lexsort((level, block, row))
        row, level, block = row[order], level[order], block[order]
        offset = np.concatenate([[0], np.cumsum(np.diff(edges)[block])])
        shared = wanted.sum(axis=1)[row] > 1
        return cls(row, level, edges[block], offset.astype(np.int64), shared)

    @property
    def total(self) -> int:
        """How many samples there are."""
        return int(self.offset[-1])

    def pieces(self, batch: Batch) -> Iterator[Piece]:
        """Yield what sits in a batch, in order."""
        segment = int(np.searchsorted(self.offset, batch.begin, side="right")) - 1
        place = batch.begin
        while place < batch.end:
            begin, end = int(self.offset[segment]), int(self.offset[segment + 1])
            first, count = int(self.first[segment]) + place - begin, min(end, batch.end) - place
            whole = range(int(self.first[segment]), int(self.first[segment]) + end - begin)
            drawn = whole if self.shared[segment] else range(first, first + count)
            row, level = int(self.row[segment]), int(self.level[segment])
            yield Piece(row, level, first, count, place - batch.begin, drawn)
            place, segment = place + count, segment + 1


def halves(size: int) -> list[int]:
    """Return the sizes that batches may have: the largest, its half, a quarter, ... down to `SMALLEST` or less."""
    sizes = [size]
    while sizes[-1] > SMALLEST:
        sizes.append(-(-sizes[-1] // 2))
    return sizes


def batches(total: int, size: int, *, one_size: bool, workers: int = 1) -> list[Batch]:
    """Cut places 0 to total - 1 into batches.

    Parameters
    ----------
    total : int
        How many places there are.
    size : int
        The largest batch.
    one_size : bool
        Make all batches as large as that, for models that take no other.
    workers : int, default=1
        Where there are too few places to give each worker a whole batch, batches are halved until there are enough.

    Notes
    -----
    What is left after whole batches goes through halves, quarters and so on, so that at least `USED` of every batch
    but the smallest is used.
    """
    sizes = [size] if one_size else halves(size)
    while len(sizes) > 1 and total <= (workers - 1) * sizes[0]:
        sizes.pop(0)
    found, begin = [], 0
    while (left := total - begin) > 0:
        enough = next((small for small in reversed(sizes) if small >= left), sizes[0])
        fits = enough <= left or left >= USED * enough or enough == sizes[-1]
        chosen = enough if fits else next(small for small in sizes if small <= left)
        found.append(Batch(begin, begin + min(chosen, left), chosen))
        begin = found[-1].end
    return found
