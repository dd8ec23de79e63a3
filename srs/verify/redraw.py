"""Votes drawn again: the smoothed classifier counts the samples that a run says it drew."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float32

from smoothing import SmoothedClassifier
from srs.verify.evidence import Described, Map, Rows
from srs.verify.rows import Cell

#: Images that are drawn together, and counts of votes that are held of them.
_TOGETHER, _MOST_COUNTS = 16, 2**22


@dataclass(frozen=True)
class Moved:
    """A cell in which other votes were counted than its row has.

    Attributes
    ----------
    idx : int
        The image's index in its data set.
    sigma : float
    stage : {"select", "estimate"}
    votes, n : int
        How many votes are for another class, of how many.
    """

    idx: int
    sigma: float
    stage: str
    votes: int
    n: int

    def __str__(self) -> str:
        """Return it as people read it."""
        file = "selection.tsv" if self.stage == "select" else "estimation.tsv"
        return (
            f"{file}: image {self.idx}, sigma = {self.sigma:g}: {self.votes} of {self.n} votes are others when redrawn"
        )


def images_of(run: Described, found: Map) -> Float32[np.ndarray, "n c h w"]:
    """Return the images, which are the centres of the map."""
    return found.centres.astype(np.float32).reshape(-1, *run.manifest["data"]["shape"])


def redraw(
    run: Described, rows: Rows, found: Map, classifier: SmoothedClassifier, images: Sequence[int]
) -> Iterator[tuple[list[int], list[Moved]]]:
    """Draw the votes of some images again; give them some at a time, with what differs."""
    pixels, k = images_of(run, found), len(run.sigmas)
    together = max(1, min(_TOGETHER, _MOST_COUNTS // (k * classifier.num_classes)))
    for start in range(0, len(images), together):
        some = list(images[start : start + together])
        tensor = torch.from_numpy(pixels[some])
        classifier.begin(tensor)
        indices = np.array([rows.idx[j] for j in some])
        sigma = np.tile(run.sigmas, (len(some), 1))
        moved = []
        for stage, table in (("select", rows.selection), ("estimate", rows.estimation)):
            cells = [[table[j][at] for at in range(k)] for j in some]
            rounds = max(len(cell.sizes) for row in cells for cell in row if cell)
            votes = np.zeros((len(some), k, classifier.num_classes), dtype=np.int64)
            before = np.zeros(sigma.shape, dtype=np.int64)
            for number in range(rounds):
                wanted = np.array([[cell is not None and len(cell.sizes) > number for cell in row] for row in cells])
                sizes = np.array([[cell.sizes[number] if cell and len(cell.sizes) > number else 0 for cell in row]
                                  for row in cells])  # fmt: skip
                for stop in np.unique(sizes[wanted]).tolist():  # of format 1, which may have stopped anywhere
                    now = wanted & (sizes == stop)
                    for begin in np.unique(before[now]).tolist():
                        part = now & (before == begin)
                        votes += classifier.count_votes(
                            tensor, indices, sigma, wanted=part, start=begin, stop=stop, stage=stage
                        )
                before = np.where(wanted, sizes, before)
                for i, at in np.argwhere(wanted).tolist():
                    cell, j = cells[i][at], some[i]
                    if cell and (differ := _differ(rows.chosen[j].classes[at], cell, number, votes[i, at], stage)):
                        moved.append(Moved(rows.idx[j], run.sigmas[at], stage, differ, int(sizes[i, at])))
        yield some, moved


def _differ(one: int, cell: Cell, number: int, votes: np.ndarray, stage: str) -> int:
    """Return how many votes are for other classes than the row says; of format 1 what it kept of those for a class."""
    if not cell.complete:
        if stage == "select":
            return int(votes.max() - votes[one]) or int(votes.argmax() != one)
        return abs(int(votes[one]) - cell.top(one).own)
    wanted = np.zeros_like(votes)
    for name, count in cell.votes[number].items():
        wanted[name] = count
    return int(np.abs(votes - wanted).sum()) // 2
