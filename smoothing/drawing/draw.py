"""The engine of certification runs: which samples to draw, in which order, and what is kept of them.

1. *select*: selection samples of every image at every level (`selection.tsv`).
2. *levels*: each image's level, by them alone (`levels.tsv`). A rule chooses image by image; a joint choice needs the
   selection samples of all images.
3. *estimate*: fresh samples at the levels that are certified (`estimation.tsv`), more where more would help.

Where a router chooses among the levels, it votes as well, after each of the first and the third (`files.ROUTES`).

Each process does its share of the images in every stage (`stages.Share`). Whichever process finds all shares of a stage
on disk puts them together. Rows depend neither on interruptions nor on the number of processes, but for their time.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

from smoothing.ahead import ahead
from smoothing.drawing.files import VoteFiles
from smoothing.drawing.stages import Share, Stage
from smoothing.progress import Counter, Progress
from smoothing.results import Identity
from smoothing.routing import RoutedClassifier
from smoothing.routing_results import RoutedIdentity
from smoothing.storage import locked
from smoothing.tables import time_text
from smoothing.voter import Voter
from smoothing.votes import Tally

#: Taken while parts are put together.
LOCK = ".lock"

#: Batches of every worker that images certified together should fill: then those that are not full cost little.
FULL_BATCHES = 25

#: Most images between two times that rows are written.
MOST_TOGETHER = 16

#: Seconds between two looks at what other processes have written: at first, and at most.
_WAIT, _LONGEST_WAIT = 0.05, 5.0


@contextmanager
def owned(folder: Path, share: Share) -> Iterator[None]:
    """Make a share this process's own for as long as the context lasts."""
    file = folder / f"{LOCK}{share.number}"
    with locked(file, folder):
        try:
            yield
        finally:
            file.unlink(missing_ok=True)


@contextmanager
def owned_by_nobody_else(folder: Path) -> Iterator[None]:
    """Take all shares that anybody began, or say that another process is writing the folder."""
    with ExitStack() as held:
        for file in sorted(folder.glob(f"{LOCK}[0-9]*")):
            held.enter_context(locked(file, folder))
        yield


@dataclass(frozen=True)
class Missing:
    """What a run still lacks: in which stage, and of how many images."""

    stage: str
    images: Int64[np.ndarray, " missing"]

    def shares(self, of: int) -> str:
        """Name the shares that are not done, of so many: 2/4 and 3/4."""
        return " and ".join(str(Share(number, of)) for number in np.unique(self.images % of).tolist())


def draw(
    files: VoteFiles,
    classifier: Voter,
    images: Callable[[Int64[np.ndarray, " b"]], Tensor],
    labels: Int64[np.ndarray, " n"],
    share: Share,
    *,
    joint: Callable[[Float64[np.ndarray, "n k"]], Int64[np.ndarray, " n"]] | None = None,
    router: RoutedClassifier | None = None,
    wait: bool = False,
    progress: bool | Progress = False,
) -> Missing | None:
    """Draw a share of a run's samples, from where its files stand, and put the run together where it is complete.

    Parameters
    ----------
    files : VoteFiles
    classifier : Voter
    images : callable
        images(positions) returns those images of the run, checked, of shape (b, C, H, W). It is called in another
        thread, one call after the other.
    labels : int array of shape (n,)
        True classes, -1 where unknown; written beside the votes.
    share : Share
        Nobody else may draw the share of this number in the meantime.
    joint : callable, optional
        Chooses the levels of all images together, from the radii that the rule ranks by.
    router : RoutedClassifier, optional
        The classifier with its router, where the design has one.
    wait : bool, default=False
        Wait for the shares of other processes, which are running.
    progress : bool or callable, default=False
        Show a bar on stderr, or call progress(stage, done, total) from time to time.

    Returns
    -------
    Missing or None
        What other shares still have to do; None where the run's rows are complete.

    Raises
    ------
    ValueError
        Where rows on disk are damaged, and where the classifier was changed meanwhile.
    """
    work = _Work(files, classifier, router, images, labels, share, (router or classifier).identity, progress)
    work.select()
    work.route("select")
    if joint is not None and (lacking := _lacking(files.selection, wait)).size:
        return Missing("selection", lacking)
    level = _choose(files, joint)
    work.estimate(level)
    work.route("estimate")
    for name, stage in reversed(files.stages.items()):
        if (lacking := _lacking(stage, wait)).size:
            return Missing(name.removesuffix(".tsv"), lacking)
    with locked(files.folder / LOCK, files.folder, wait=True):
        files.selection.merge()
        if files.levels() is None:
            files.write_levels(files.selected().outcome.level)
        for stage in files.stages.values():
            stage.merge()
    return None


def _lacking(stage: Stage, wait: bool) -> Int64[np.ndarray, " images"]:
    """Return which images lack their rows; with `wait`, only when none does."""
    pause = _WAIT
    while (lacking := stage.missing()).size and wait:
        time.sleep(pause)
        pause = min(1.5 * pause, _LONGEST_WAIT)
    return lacking


def _choose(
    files: VoteFiles, joint: Callable[[Float64[np.ndarray, "n k"]], Int64[np.ndarray, " n"]] | None
) -> Int64[np.ndarray, " n"]:
    """Return each image's level; where the rule chooses image by image, 0 for those that are not selected yet."""
    if joint is None:
        level = np.zeros(len(files.design.idx), dtype=np.int64)
        selected = files.selected()
        level[selected.images] = selected.outcome.level
        return level
    with locked(files.folder / LOCK, files.folder, wait=True):
        found = files.levels()
        if found is None:
            files.selection.merge()
            found = joint(files.selected().outcome.expected_radius)
            files.write_levels(found)
    return found


@dataclass(frozen=True, eq=False)
class _Work:
    """One process's share of a run."""

    files: VoteFiles
    classifier: Voter
    router: RoutedClassifier | None
    images: Callable[[Int64[np.ndarray, " b"]], Tensor]
    labels: Int64[np.ndarray, " n"]
    share: Share
    identity: Identity | RoutedIdentity
    progress: bool | Progress

    def select(self) -> None:
        """Draw the selection samples that the share lacks."""
        design, stage = self.files.design, self.files.selection
        for positions, pixels, append in self._chunks(stage, design.plan.n0 * design.sigma.shape[1]):
            began = time.perf_counter()
            sigma, idx = design.sigma[positions], design.idx[positions]
            self._begin(pixels)
            _, tally = self.classifier.select_votes(pixels, idx, sigma, plan=design.plan)
            clean = self.classifier.clean_classes(pixels, sigma)
            each = time_text((time.perf_counter() - began) / sigma.size)
            append(
                (str(idx[i]), str(self.labels[at]), repr(value), str(clean[i, j]), *tally.text(i, j), each)
                for i, at in enumerate(positions.tolist())
                for j, value in enumerate(sigma[i].tolist())
            )

    def estimate(self, level: Int64[np.ndarray, " n"]) -> None:
        """Draw the estimation samples that the share lacks, of the classes that selection samples voted for."""
        design, stage = self.files.design, self.files.estimation
        selected = self.files.selected()
        classes, share = np.zeros(design.sigma.shape, dtype=np.int64), np.zeros(design.sigma.shape)
        classes[selected.images], share[selected.images] = selected.outcome.classes, selected.outcome.share
        for positions, pixels, append in self._chunks(stage, design.ladder.rungs[0] * stage.each):
            began = time.perf_counter()
            sigma, idx = design.sigma[positions], design.idx[positions]
            self._begin(pixels)
            wanted: Bool[np.ndarray, "b k"] = np.ones(sigma.shape, dtype=bool)
            if design.chosen_only:
                wanted = np.arange(sigma.shape[1]) == level[positions, None]
            tally = self.classifier.estimate_votes(
                pixels,
                idx,
                sigma,
                wanted=wanted,
                classes=classes[positions],
                share=share[positions],
                ladder=design.ladder,
                alpha=design.plan.alpha,
            )
            each = time_text((time.perf_counter() - began) / np.count_nonzero(wanted))
            append(
                (str(idx[i]), repr(float(sigma[i, j])), *tally.text(i, j), each)
                for i, j in np.argwhere(wanted).tolist()
            )

    def route(self, name: str) -> None:
        """Draw the router's votes that the share lacks of a stage; nothing without a router."""
        if self.router is None:
            return
        design, stage = self.files.design, self.files.routes[name]
        n = design.routes(name)
        for positions, pixels, append in self._chunks(stage, n):
            began = time.perf_counter()
            self._begin(pixels)
            votes = self.router.route(pixels, design.idx[positions], n=n, stage=name)
            each = time_text((time.perf_counter() - began) / len(positions))
            rows = Tally((n,), votes[None, :, None], np.ones((len(positions), 1), dtype=np.int64))
            append((str(idx), *rows.text(i, 0), each) for i, idx in enumerate(design.idx[positions].tolist()))

    def _begin(self, pixels: Tensor) -> None:
        if self._identity(pixels) != self.identity:
            raise ValueError(
                f"{self.files.folder}: the model was changed while it was certified: begin again in another folder"
            )

    def _identity(self, pixels: Tensor) -> Identity | RoutedIdentity:
        return self.classifier.begin(pixels) if self.router is None else self.router.begin(pixels)

    def _chunks(
        self, stage: Stage, samples: int
    ) -> Iterator[tuple[Int64[np.ndarray, " b"], Tensor, Callable[[Iterator[tuple[str, ...]]], None]]]:
        """Give images of the share without rows, as many as fill batches with so many samples each, and `append`.

        A thread reads the next images while these are worked on.
        """
        mine = self.share.positions(len(stage.idx))
        left = np.intersect1d(stage.missing(), mine)
        if not left.size:
            return
        full = FULL_BATCHES * self.classifier.batch_size * self.classifier.threads
        together = max(1, min(MOST_TOGETHER, full // samples))
        parts = [left[start : start + together] for start in range(0, len(left), together)]
        what = {self.files.selection: "select", self.files.estimation: "certify"}.get(stage, "route")
        with (
            stage.appending(self.share) as append,
            Counter(self.progress, what, len(mine), len(mine) - len(left)) as counter,
            closing(ahead(self.images, parts)) as read,
        ):
            for positions, pixels in zip(parts, read, strict=True):
                yield positions, pixels, append
                counter.advance(len(positions))
