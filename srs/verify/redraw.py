"""Votes drawn again: the smoothed classifier, and its router, count the samples that a run says it drew."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float32

from smoothing import SmoothedClassifier
from srs.verify.evidence import Described, Map, Rows
from srs.verify.geometry import in_bytes
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
    sigma : float or None
        None where the router voted.
    stage : {"select", "estimate"}
    votes, n : int
        How many votes are for another class or level, of how many.
    """

    idx: int
    sigma: float | None
    stage: str
    votes: int
    n: int

    def __str__(self) -> str:
        """Return it as people read it."""
        file = "selection.tsv" if self.stage == "select" else "estimation.tsv"
        where = f"router_{file}: image {self.idx}"
        if self.sigma is not None:
            where = f"{file}: image {self.idx}, sigma = {self.sigma:g}"
        return f"{where}: {self.votes} of {self.n} votes are others when redrawn"


def images_of(run: Described, found: Map, images: Sequence[int]) -> Float32[np.ndarray, "b c h w"]:
    """Return some of the images, which are the centres of the map."""
    pixels = found.centres[list(images)].astype(np.float32).reshape(-1, *run.manifest["data"]["shape"])
    return pixels / np.float32(255) if in_bytes(found.centres) else pixels


def redraw(
    run: Described,
    rows: Rows,
    found: Map,
    classifier: SmoothedClassifier,
    images: Sequence[int],
    router: SmoothedClassifier | None = None,
) -> Iterator[tuple[list[int], list[Moved]]]:
    """Draw the votes of some images again; give them some at a time, with what differs."""
    k = len(run.sigmas)
    together = max(1, min(_TOGETHER, _MOST_COUNTS // (k * classifier.num_classes)))
    for start in range(0, len(images), together):
        some = list(images[start : start + together])
        tensor = torch.from_numpy(images_of(run, found, some))
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
        if router is not None:
            moved += _rerouted(run, rows, router, some, tensor)
        yield some, moved


def _rerouted(
    run: Described, rows: Rows, router: SmoothedClassifier, some: list[int], tensor: torch.Tensor
) -> list[Moved]:
    """Draw the router's votes of some images again."""
    assert rows.routes is not None  # a network voted
    router.begin(tensor)
    indices, moved = np.array([rows.idx[j] for j in some]), []
    sigma, every = np.full((len(some), 1), run.manifest["router"]["sigma"]), np.ones((len(some), 1), dtype=bool)
    for stage, cells in (("select", rows.routes.selection), ("estimate", rows.routes.estimation)):
        n = cells[0].sizes[0]
        votes = router.count_votes(tensor, indices, sigma, wanted=every, start=0, stop=n, stage=stage)
        for j, row in zip(some, votes[:, 0], strict=True):
            if differ := _differ(0, cells[j], 0, row, stage):
                moved.append(Moved(rows.idx[j], None, stage, differ, n))
    return moved


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
