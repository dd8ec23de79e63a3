"""The files of a run's votes: what its settings say about them, and how they are read."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64

from smoothing.adaptive import Ladder
from smoothing.drawing.stages import Stage, Table
from smoothing.selection import Outcome, Plan, select_again
from smoothing.storage import whole_lines
from smoothing.tables import write_rows
from smoothing.votes import Votes, read_votes

SELECTION, LEVELS, ESTIMATION = "selection.tsv", "levels.tsv", "estimation.tsv"

#: The votes of a router, by what its samples are for.
ROUTES = {"select": "router_selection.tsv", "estimate": "router_estimation.tsv"}

_SELECTION = ("idx", "label", "sigma", "clean", "n", "votes", "time")
_LEVELS = ("idx", "sigma")
_ESTIMATION = ("idx", "sigma", "n", "votes", "time")
_ROUTE = ("idx", "n", "votes", "time")


@dataclass(frozen=True, eq=False)
class Design:
    """What a run draws: all that its settings say about its rows.

    Attributes
    ----------
    idx : int array of shape (n,)
        Each image's index in its data set, none twice.
    sigma : array of shape (n, k)
        The levels to choose from.
    num_classes : int
    plan : Plan
        Selection samples, and how levels are chosen by them; its alpha is each image's.
    ladder : Ladder
        Estimation samples.
    chosen_only : bool
        Draw estimation samples at each image's own level alone.
    routed : bool, default=False
        A router votes as well, `plan.n0` times and then, with fresh samples, as often as the last of the ladder.
    """

    idx: Int64[np.ndarray, " n"]
    sigma: Float64[np.ndarray, "n k"]
    num_classes: int
    plan: Plan
    ladder: Ladder
    chosen_only: bool
    routed: bool = False

    def routes(self, stage: str) -> int:
        """Return how many of the router's samples a stage has, "select" or "estimate"."""
        return self.plan.n0 if stage == "select" else self.ladder.rungs[-1]


@dataclass(frozen=True, eq=False)
class Selected:
    """Selection samples of some images of a run, and what the rule makes of them.

    Attributes
    ----------
    images : int array of shape (p,)
        Which images of the run, increasing.
    label : int array of shape (p,)
        True classes, -1 where unknown. They stand beside the votes for reports, and nothing else looks at them.
    clean : int array of shape (p, k)
        Class without noise.
    votes : Votes
        Of p images.
    outcome : Outcome
        The rule's decision, image by image.
    seconds : array of shape (p,)
    """

    images: Int64[np.ndarray, " p"]
    label: Int64[np.ndarray, " p"]
    clean: Int64[np.ndarray, "p k"]
    votes: Votes
    outcome: Outcome
    seconds: Float64[np.ndarray, " p"]


@dataclass(frozen=True, eq=False)
class Estimated:
    """Estimation samples of some images of a run.

    Attributes
    ----------
    images : int array of shape (p,)
        Which images of the run, increasing.
    votes : Votes
        Of p images.
    seconds : array of shape (p, k)
        0 at levels without samples.
    """

    images: Int64[np.ndarray, " p"]
    votes: Votes
    seconds: Float64[np.ndarray, "p k"]


@dataclass(frozen=True, eq=False)
class Routed:
    """How often a router named which level.

    Attributes
    ----------
    images : int array of shape (p,)
        Which images of the run, increasing.
    votes : int array of shape (p, k)
    seconds : array of shape (p,)
    """

    images: Int64[np.ndarray, " p"]
    votes: Int64[np.ndarray, "p k"]
    seconds: Float64[np.ndarray, " p"]


class VoteFiles:
    """The rows of a run in its folder. They may come from somebody else: all that is read is checked."""

    def __init__(self, folder: Path, design: Design) -> None:
        self.folder, self.design = folder, design
        k = design.sigma.shape[1]
        self.selection = Stage(folder / SELECTION, _SELECTION, design.idx, k)
        self.estimation = Stage(folder / ESTIMATION, _ESTIMATION, design.idx, 1 if design.chosen_only else k)
        self.routes = {
            stage: Stage(folder / name, _ROUTE, design.idx, 1) for stage, name in ROUTES.items() if design.routed
        }

    @property
    def stages(self) -> dict[str, Stage]:
        """Every table of votes by its name, in the order in which they are drawn."""
        found = {SELECTION: self.selection}
        for stage, name in ROUTES.items():
            if stage in self.routes:
                found[name] = self.routes[stage]
        return {**found, ESTIMATION: self.estimation}

    def selected(self) -> Selected:
        """Return the selection samples that are on disk."""
        design = self.design
        k, most = design.sigma.shape[1], design.num_classes - 1
        rungs = design.plan.rungs
        parts = []
        for table, images in self.selection.tables():
            self._check_sigma(table, design.sigma[images])
            label = table.integers("label", -1, most).reshape(-1, k)
            if (label != label[:, :1]).any():
                raise ValueError(f"{table.path} gives an image several labels: begin in another folder")
            clean = table.integers("clean", 0, most)
            votes = _votes(table, rungs, design.num_classes, k)
            seconds = table.durations("time").reshape(-1, k).sum(axis=1)
            parts.append((images, label[:, 0], clean, votes, seconds))
        images, label, clean = (_joined(parts, column) for column in (0, 1, 2))
        order, votes = _first_of_each(images), Votes.joined(rungs, k, [part[3] for part in parts])
        images, votes = images[order], votes.take(order)
        outcome = select_again(votes, design.num_classes, design.sigma[images], design.plan)
        if outcome is None:
            raise ValueError(
                f"{self.selection.file} is damaged: the run's rule would have drawn other samples; begin in another "
                "folder"
            )
        return Selected(
            images, label[order], clean.reshape(-1, k)[order], votes, outcome, _joined(parts, 4, np.float64)[order]
        )

    def levels(self) -> Int64[np.ndarray, " n"] | None:
        """Return each image's level, or None where they are not chosen yet."""
        file, design = self.folder / LEVELS, self.design
        if not file.exists():
            return None
        table = Table(file, _LEVELS, whole_lines(file))
        if not np.array_equal(table.integers("idx"), design.idx):
            raise ValueError(f"{file} holds rows of other images: begin in another folder")
        same = design.sigma == table.floats("sigma")[:, None]
        if not same.any(axis=1).all():
            raise ValueError(f"{file} is damaged: restore it, or begin in another folder")
        return np.asarray(same.argmax(axis=1))

    def write_levels(self, level: Int64[np.ndarray, " n"]) -> None:
        """Write `levels.tsv`."""
        sigma = self.design.sigma[np.arange(len(level)), level].tolist()
        rows = ((str(j), repr(value)) for j, value in zip(self.design.idx.tolist(), sigma, strict=True))
        write_rows(self.folder / LEVELS, _LEVELS, rows)

    def estimated(self, level: Int64[np.ndarray, " n"]) -> Estimated:
        """Return the estimation samples that are on disk, of images whose levels these are."""
        design = self.design
        k, rungs = design.sigma.shape[1], design.ladder.rungs
        parts = []
        for table, images in self.estimation.tables():
            at = level[images, None] if design.chosen_only else np.tile(np.arange(k), (len(images), 1))
            self._check_sigma(table, np.take_along_axis(design.sigma[images], at, axis=1))
            votes = _votes(table, rungs, design.num_classes, self.estimation.each)
            if design.chosen_only:
                votes = votes.spread(at[:, 0], k)
            seconds = np.zeros((len(images), k))
            np.put_along_axis(seconds, at, table.durations("time").reshape(at.shape), axis=1)
            parts.append((images, votes, seconds.ravel()))
        images, order = _joined(parts, 0), _first_of_each(_joined(parts, 0))
        votes = Votes.joined(rungs, k, [part[1] for part in parts]).take(order)
        return Estimated(images[order], votes, _joined(parts, 2, np.float64).reshape(-1, k)[order])

    def routed(self, stage: str) -> Routed:
        """Return the router's votes of a stage that are on disk."""
        k, rungs = self.design.sigma.shape[1], (self.design.routes(stage),)
        parts = [
            (images, _votes(table, rungs, k, 1), table.durations("time"))
            for table, images in self.routes[stage].tables()
        ]
        images = _joined(parts, 0)
        order = _first_of_each(images)
        votes = Votes.joined(rungs, 1, [part[1] for part in parts]).take(order)
        counts = votes.dense(slice(None), k).votes[0, :, 0]
        return Routed(images[order], counts, _joined(parts, 2, np.float64)[order])

    def _check_sigma(self, table: Table, sigma: Float64[np.ndarray, "p each"]) -> None:
        if not np.array_equal(table.floats("sigma"), sigma.ravel()):
            raise ValueError(f"{table.path} holds rows of other noise levels: begin in another folder")


def _votes(table: Table, rungs: tuple[int, ...], num_classes: int, each: int) -> Votes:
    return read_votes(rungs, num_classes, each, table.texts("n"), table.texts("votes"), table.error)


def _joined(parts: Sequence[tuple[Any, ...]], column: int, kind: type = np.int64) -> np.ndarray:
    return np.concatenate([np.zeros(0, dtype=kind), *(part[column] for part in parts)])


def _first_of_each(images: Int64[np.ndarray, " rows"]) -> Int64[np.ndarray, " p"]:
    """Return where each image occurs first, images increasing: two processes may have done the same."""
    return np.unique(images, return_index=True)[1]
