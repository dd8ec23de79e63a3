"""What a level for each training image costs: Eq. 5 on the grid, raced, and by margins with a few passes an image.

Every way chooses for the same MNIST training images and the same network, and all are judged by the same fresh samples.
Votes are kept in --tables, so that a stopped run goes on. On a busy machine seconds of the clock say little: what is
compared is the CPU time of one thread.
"""

import argparse
import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from _common import DOCS, Row, data_folder, markdown_table, write_markdown, write_rows
from jaxtyping import Bool, Float64, Int64

from smoothing import SmoothedClassifier, sigma_grid
from smoothing.confidence import certified_radius, lower_confidence_bound
from smoothing.selection import Plan, select
from training import (
    ByteImages,
    as_bytes,
    choose_levels,
    choose_levels_by_margins,
    load_checkpoint,
    load_data,
    training_config,
)
from training.chunks import FIRST_INDEX, in_chunks

N0, ALPHA = 500, 0.001
RACED = Plan(N0, "max-radius", ALPHA, N0, racing=True, bound="top-class")
GRID = Plan(N0, "max-radius", ALPHA, N0, racing=False, bound="top-class")
T = TypeVar("T")
BUDGETS = (10, 20, 30)
TIMED_IMAGES = 64


@dataclass(frozen=True, eq=False)
class Choice:
    """What a way chose: each image's level, as its place in the grid, and passes and CPU seconds an image."""

    way: str
    level: Int64[np.ndarray, " n"]
    passes: float
    seconds: float | None


class Contest:
    """A network, training images of its own, and their votes."""

    def __init__(self, checkpoint: Path, images: int, tables: Path) -> None:
        config = training_config(checkpoint)
        data = load_data("mnist", data_folder())
        rows = np.random.default_rng(config["seed"]).permutation(len(data.train_labels))[:images]  # srs-train's first
        found = as_bytes(data.train_images[rows])
        assert found is not None
        self.images: ByteImages = found
        self.labels = data.train_labels[rows]
        self.sigmas = sigma_grid(config["sigma_min"], config["sigma_max"], config["sigma_step"])
        self.classifier = SmoothedClassifier(
            load_checkpoint(checkpoint), 10, precision=config["precision"], threads=1, seed=config["seed"]
        )
        self.tables = tables
        tables.mkdir(parents=True, exist_ok=True)

    def votes(self, stage: str, rungs: tuple[int, ...]) -> Int64[np.ndarray, "n k rungs"]:
        """Return votes for the label at every level, after so many samples of a stage."""

        def count(rows: Int64[np.ndarray, " b"]) -> Float64[np.ndarray, "b width"]:
            pixels = torch.from_numpy(self.images[rows])
            self.classifier.begin(pixels)
            sigma, found = np.tile(self.sigmas, (len(rows), 1)), []
            for start, stop in itertools.pairwise((0, *rungs)):
                votes = self.classifier.count_votes(
                    pixels,
                    FIRST_INDEX + rows,
                    sigma,
                    wanted=np.ones(sigma.shape, dtype=bool),
                    start=start,
                    stop=stop,
                    stage=stage,
                )
                found.append(np.take_along_axis(votes, self.labels[rows, None, None], axis=2)[..., 0])
            return np.cumsum(found, axis=0).transpose(1, 2, 0).reshape(len(rows), -1).astype(np.float64)

        file = self.tables / f"{stage}-{self.classifier.identity.weights[:12]}.votes"
        width = len(self.sigmas) * len(rungs)
        table = in_chunks(count, len(self.labels), width, title=f"{stage} samples", partial=file, progress=True)
        return table.astype(np.int64).reshape(len(self.labels), -1, len(rungs))

    def from_votes(self, way: str, plan: Plan, votes: Int64[np.ndarray, "n k rungs"]) -> Choice:
        """Return what a plan chooses from votes that hold all it may draw."""
        place = {rung: at for at, rung in enumerate(RACED.rungs)}

        def count(wanted: Bool[np.ndarray, "n k"], start: int, stop: int) -> Int64[np.ndarray, "n k 2"]:
            label = votes[..., place[stop]] - (votes[..., place[start]] if start else 0)
            return np.where(wanted[..., None], np.stack([stop - start - label, label], axis=2), 0)

        sigma = np.tile(self.sigmas, (len(votes), 1))
        found, _ = select(count, sigma, plan, np.ones(len(votes), dtype=np.int64))

        def timed() -> object:
            part = slice(0, TIMED_IMAGES)
            return choose_levels(
                self.classifier,
                self.images[part],
                self.labels[part],
                sigmas=self.sigmas,
                n0=N0,
                racing=plan.racing,
            )

        return Choice(way, found.level, found.samples.sum(axis=1).mean(), _cpu_seconds(timed)[1] / TIMED_IMAGES)

    def by_margins(self, passes: int) -> Choice:
        """Return what a few passes choose."""
        found, seconds = _cpu_seconds(
            lambda: choose_levels_by_margins(
                self.classifier, self.images, self.labels, sigmas=self.sigmas, n0=N0, passes=passes
            )
        )
        n = len(self.labels)
        level = np.asarray(np.searchsorted(self.sigmas, found.sigma))
        return Choice(f"margins, {passes} passes", level, found.passes / n, seconds / n)

    def radii(self, votes: Int64[np.ndarray, "n k"]) -> Float64[np.ndarray, "n k"]:
        """Return the radii that 500 votes certify, 0 where the label does not win (Eq. 5)."""
        radii: Float64[np.ndarray, "n k"] = certified_radius(self.sigmas, lower_confidence_bound(votes, N0, ALPHA))
        return radii


def _cpu_seconds(work: Callable[[], T]) -> tuple[T, float]:
    begun = time.process_time()
    return work(), time.process_time() - begun


def measure(contest: Contest) -> list[Row]:
    """Return one row for each way."""
    votes = contest.votes("select", RACED.rungs)
    grid = contest.from_votes("grid", GRID, votes)
    mean = contest.radii(votes[..., -1]).mean(axis=0)
    constant = Choice(
        f"sigma = {contest.sigmas[mean.argmax()]:g} for all",
        np.full(len(contest.labels), mean.argmax()),
        grid.passes,
        grid.seconds,
    )
    choices = [grid, contest.from_votes("grid, racing", RACED, votes), *map(contest.by_margins, BUDGETS), constant]
    fresh = contest.radii(contest.votes("estimate", (N0,))[..., 0])
    rows, every = [], np.arange(len(fresh))
    best = fresh[every, grid.level]
    for choice in choices:
        radius = fresh[every, choice.level]
        lost = best - radius
        rows.append(
            {
                "benchmark": "choice",
                "data": "mnist",
                "images": len(contest.labels),
                "levels": contest.sigmas.tolist(),
                "way": choice.way,
                "passes_per_image": choice.passes,
                "cpu_seconds_per_image": choice.seconds,
                "mean_radius": radius.mean(),
                "lost_percent": 100 * lost.mean() / best.mean(),
                "lost_percent_standard_error": 100 * lost.std(ddof=1) / np.sqrt(len(lost)) / best.mean(),
                "same_level_as_grid": float((choice.level == grid.level).mean()),
                "mean_sigma": contest.sigmas[choice.level].mean(),
            }
        )
    return rows


def table(rows: list[Row]) -> str:
    """One line for each way."""
    lines = [
        [
            row["way"],
            f"{row['passes_per_image']:,.0f}",
            f"{1000 * row['cpu_seconds_per_image']:,.1f}",
            f"{row['mean_radius']:.4f}",
            f"{row['lost_percent']:.2f}",
            f"{row['lost_percent_standard_error']:.2f}",
            f"{100 * row['same_level_as_grid']:.0f}",
        ]
        for row in rows
    ]
    header = ["way", "passes an image", "CPU ms an image", "mean radius", "lost %", "+-", "same level %"]
    return markdown_table(header, lines)


NOTE = """{images:,} training images of MNIST that the network was trained on, {levels} levels, the network of the
preset `mnist-quick` after its first stage: where Algorithm 1 chooses. The radius of Eq. 5 is the one that n0 = 500
votes certify for the label at alpha = 0.001, one-sided, 0 where the label does not win. *Mean radius* is that radius
from 500 fresh votes of each image at the level that it got, the same votes for all ways; *lost* compares it with the
grid's, image by image, with the standard error of the mean difference. *CPU ms* is the time of one thread, of {timed}
images for the grid, of all for margins. The best constant level is found with all votes of the grid.
"""

COMMANDS = """## The commands

```sh
srs-train mnist-quick --data-dir data --download --out runs/mnist    # stopped where it begins to choose sigma
SRS_DATA=data python benchmarks/choice.py --checkpoint runs/mnist/checkpoint.pt --tables runs/choice
srs-train mnist-quick --data-dir data --out runs/mnist-margins --choice margins
```
"""


def main() -> None:
    """Choose in every way, judge, and write rows and page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, required=True, help="of srs-train, after its first stage")
    parser.add_argument("--images", type=int, default=5000, help="training images (default: %(default)s)")
    parser.add_argument("--tables", type=Path, required=True, help="folder for the votes")
    options = parser.parse_args()
    torch.set_num_threads(1)
    contest = Contest(options.checkpoint, options.images, options.tables)
    rows = measure(contest)
    note = NOTE.format(images=options.images, levels=len(contest.sigmas), timed=TIMED_IMAGES)
    write_rows("choice", rows)
    write_markdown("choice", "A level for each training image", [note, table(rows), COMMANDS], DOCS)


if __name__ == "__main__":
    main()
