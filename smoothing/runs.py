"""Certification of a data set into one table: killed, it goes on where it was, and several processes share the work.

Beside the table there is a folder of the same name with `.votes` at its end. Its `manifest.json` says what is being
certified, its other files hold the votes that everything in the table is computed from (`smoothing.drawing`).
"""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from smoothing import _validate, _validate_inputs
from smoothing.adaptive import Ladder
from smoothing.bounds import BOUNDS, counted_bounds
from smoothing.classifier import SmoothedClassifier, as_ladder
from smoothing.confidence import certified_radius, shared_alpha
from smoothing.drawing.draw import LOCK, draw, owned
from smoothing.drawing.files import Design, VoteFiles
from smoothing.drawing.stages import Share
from smoothing.fingerprint import classifier_difference, difference, hash_arrays
from smoothing.images import ImageSource, RunImages
from smoothing.machine import processes
from smoothing.progress import Progress
from smoothing.reading import read_json
from smoothing.results import ABSTAIN
from smoothing.selection import RULES, Plan
from smoothing.storage import locked, replacing
from smoothing.tables import CertificateTable, read_certificates, write_certificates

#: Of the folder of votes: a program that knows a smaller one cannot read it.
FORMAT = 2


@dataclass(frozen=True)
class Selection:
    """Choose every image's sigma: the arguments of `SmoothedClassifier.select_sigma`, with the run's n0, n and alpha.

    Attributes
    ----------
    sigmas : tuple of float
        The grid, increasing.
    rule : {"expected-radius", "max-radius", "anchor"}, default="expected-radius"
        The default differs from `select_sigma`'s, which does not know the final n; a run does.
    racing : bool, default=False
    """

    sigmas: tuple[float, ...]
    rule: str = "expected-radius"
    racing: bool = False


@_validate.once_by_position(7)
def certify_to_file(
    path: str | os.PathLike[str],
    classifier: SmoothedClassifier,
    images: ArrayLike | Tensor | ImageSource,
    *,
    sigma: ArrayLike | Selection,
    n0: int,
    n: int | Ladder,
    alpha: float = 0.001,
    labels: ArrayLike | None = None,
    indices: ArrayLike | None = None,
    simultaneous: bool = False,
    bound: str = "runner-up",
    shard: tuple[int, int] | None = None,
    progress: bool | Progress = False,
) -> CertificateTable:
    """Certify images into a table on disk; killed at any moment and called again, it goes on where it was.

    The finished file is the same, but for the column `time`, whatever interruptions there were and however many
    processes shared the work. Under `torchrun` or `accelerate launch` every process calls this with the same arguments
    (but for the classifier's device), certifies its share and gets the whole table; one process needs no launcher.
    Jobs that do not run at the same time share the work by `shard`.

    Parameters
    ----------
    path : path
        The table to write, tab separated: idx, label, predict, radius, correct, time, then sigma, counts, n, p_lower,
        p_upper, runner_up, runner_up_counts, share (`Certificates` explains them; p_upper is rounded up).
        Where it exists already, finished by the same run, it is read and returned. The votes are kept in a folder
        beside it, called as the table with `.votes` at its end.
    classifier : SmoothedClassifier
    images : array or tensor of shape (n, C, H, W), or ImageSource
        Pixels in [0, 1]. Of a source of more than 256 MiB only the images in work are in memory, such as
        `training.ByteImages(numpy.load("images.npy", mmap_mode="r"))`.
    sigma : float, array of shape (n,), or Selection
        Noise levels, or how to choose them.
    n0, n, alpha, indices, simultaneous, bound
        As in `SmoothedClassifier.certify`; `simultaneous` counts all images of the run.
    labels : int array of shape (n,), optional
        True classes, for the columns `label` and `correct` alone; -1 and 0 without.
    shard : (int, int), optional
        (2, 8) does the second of eight shares, and leaves the others to other calls, now or later, on any machine that
        sees the same folder. The call that finds all shares done writes the table.
    progress : bool or callable, default=False
        Show a bar on stderr, or call progress(stage, done, total) from time to time.

    Returns
    -------
    CertificateTable
        In the order of the images; with the guarantee of `SmoothedClassifier.certify`. With `shard`, while other shares
        are not done, those of the images that are, and no file.

    Raises
    ------
    ValueError
        Where an argument is wrong; where `path` belongs to a run of other images, settings or weights; where another
        process is doing the same share.
    """
    run = _Run(Path(path), classifier, images, sigma, n0, n, alpha, labels, indices, simultaneous, bound)
    share, wait, first = _share(shard)
    if first:
        run.begin()
    if shard is None:
        processes().wait_for_everyone()
    run.check()
    if run.path.exists():
        return read_certificates(run.path)
    with owned(run.folder, share):
        missing = draw(run.files, classifier, run.pixels, run.label, share, wait=wait, progress=first and progress)
    table = run.table()
    if missing is None:
        with locked(run.folder / LOCK, run.folder, wait=True):
            if not run.path.exists():
                write_certificates(run.path, table)
        table = read_certificates(run.path)
    return table


def _share(shard: tuple[int, int] | None) -> tuple[Share, bool, bool]:
    """Return this process's share, whether to wait for the others, and whether it is the one that begins."""
    if shard is None:
        group = processes()
        return Share(group.process_index, group.num_processes), group.num_processes > 1, group.is_main_process
    number, of = (_validate.check_count("shard", part) for part in shard)
    if number > of:
        raise ValueError(f"shard = {shard}: must be from (1, {of}) to ({of}, {of})")
    return Share(number - 1, of), False, True


class _Run:
    """One run: its checked arguments, its fingerprint, and its files."""

    def __init__(
        self,
        path: Path,
        classifier: SmoothedClassifier,
        images: ArrayLike | Tensor | ImageSource,
        sigma: ArrayLike | Selection,
        n0: int,
        n: int | Ladder,
        alpha: float,
        labels: ArrayLike | None,
        indices: ArrayLike | None,
        simultaneous: bool,
        bound: str,
    ) -> None:
        self.path, self.folder = path, path.with_name(path.name + ".votes")
        if not isinstance(images, ImageSource):
            images = _validate_inputs.check_images(images).numpy()
        self.images = RunImages(images, np.arange(len(images)))
        count, ladder = len(self.images), as_ladder(n)
        idx = _validate.check_indices(indices, count)
        if len(np.unique(idx)) < count:
            raise ValueError(
                "indices repeat: each image of a run needs an index of its own, which names its row and noise"
            )
        label = np.full(count, -1)
        if labels is not None:
            label = _validate.check_classes("labels", labels, (count,), classifier.num_classes)
        alpha = _validate.check_alpha(alpha)
        each = shared_alpha(alpha, count) if simultaneous else alpha
        ladder.alphas(each)  # refused before the work
        rule, racing = "max-radius", False
        noise: Any
        if isinstance(sigma, Selection):
            grid = _validate.check_grid(sigma.sigmas)
            rule, racing = _validate.check_choice("rule", sigma.rule, RULES), sigma.racing
            levels = np.tile(grid, (count, 1))
            noise = {"sigmas": grid.tolist(), "rule": rule, "racing": racing}
        else:
            levels = _validate.check_levels(sigma, count)[:, None]
            noise = hash_arrays(levels[:, 0])
        design = Design(
            idx=idx,
            sigma=levels,
            num_classes=classifier.num_classes,
            plan=Plan(
                _validate.check_count("n0", n0),
                rule,
                each,
                ladder.rungs[-1],
                racing,
                _validate.check_choice("bound", bound, BOUNDS),
            ),
            ladder=ladder,
            chosen_only=True,
        )
        self.label, self.files = label, VoteFiles(self.folder, design)
        self.config = {
            "format": FORMAT,
            "classifier": asdict(classifier.identity),
            "check": classifier.check_logits(self.images.shape[1:]),
            "images": self.images.sha256(idx, label),
            "count": count,
            "sigma": noise,
            "n0": design.plan.n0,
            "n": list(ladder.rungs),
            "min_gain": ladder.min_gain if isinstance(n, Ladder) else None,
            "alpha": alpha,
            "simultaneous": simultaneous,
            "bound": bound,
        }
        # named only where they are given: a run of an earlier version goes on
        given = {"weights": ladder.weights and list(ladder.weights), "target_loss": ladder.target_loss}
        self.config |= {name: value for name, value in given.items() if value is not None}
        self.about = self.folder / "manifest.json"

    def pixels(self, positions: np.ndarray) -> Tensor:
        """Return some of the images."""
        return torch.from_numpy(self.images[positions])

    def begin(self) -> None:
        """Claim the path for this run, or leave it to `check` to compare."""
        former = self.path.with_name(self.path.name + ".run.json")
        if former.exists():
            raise ValueError(
                f"{self.path} belongs to a run of an earlier version, which cannot be gone on with: name another file"
            )
        if self.path.exists() and not self.about.exists():
            raise ValueError(f"{self.path} exists, and no run of ours wrote it: name another file")
        self.folder.mkdir(parents=True, exist_ok=True)
        for file in (self.folder, *self.folder.iterdir()):
            if file.is_symlink():  # in a folder from somebody else it may name any file, which would be written
                raise ValueError(f"{file} is a link: put what it names in its place, or name another file")
        with locked(self.folder / LOCK, self.folder, wait=True):
            if not self.about.exists():
                with replacing(self.about) as stream:
                    stream.write(json.dumps(self.config, indent=2).encode() + b"\n")

    def check(self) -> None:
        """Refuse to continue a run of something else."""
        other = read_json(self.about, f"delete {self.folder.name} to start anew")
        what = classifier_difference(self.config, other)
        if what is None:
            apart = {"classifier": None, "check": None}
            if (found := difference(self.config | apart, other | apart)) is None:
                return
            what = f"{found[0]} ({found[2]}, here {found[1]})"
        raise ValueError(
            f"{self.path} belongs to a run with another {what}: name another file, or delete {self.path.name} and "
            f"{self.folder.name}"
        )

    def table(self) -> CertificateTable:
        """Return the certificates of the images whose votes are there."""
        selected = self.files.selected()
        design, n = self.files.design, len(self.files.design.idx)
        level, classes = np.zeros(n, dtype=np.int64), np.zeros(design.sigma.shape, dtype=np.int64)
        seconds, share = np.zeros(n), np.zeros(design.sigma.shape)
        level[selected.images], classes[selected.images] = selected.outcome.level, selected.outcome.classes
        share[selected.images] = selected.outcome.share
        seconds[selected.images] = selected.seconds
        estimated = self.files.estimated(level)
        rows, at = estimated.images, (estimated.images, level[estimated.images])
        counts = estimated.votes.counted(classes[rows]).at(level[rows])
        label, sigma, ladder = self.label[rows], design.sigma[at], design.ladder
        p_lower, p_upper = (
            bound[:, 0] for bound in counted_bounds(counts, design.plan.alpha, share[at][:, None], ladder.weights)
        )
        radius = certified_radius(sigma, p_lower, p_upper)
        predict = np.where(radius > 0, classes[at], ABSTAIN)
        return CertificateTable(
            idx=design.idx[rows],
            label=label,
            predict=predict,
            radius=radius,
            correct=((predict == label) & (label >= 0)).astype(np.int64),
            seconds=seconds[rows] + estimated.seconds[np.arange(len(rows)), level[rows]],
            extra={
                "sigma": sigma,
                "counts": counts.last[:, 0],
                "n": counts.drawn[:, 0],
                "p_lower": p_lower,
                "p_upper": p_upper,
                "runner_up": counts.runner_up[:, 0],
                "runner_up_counts": counts.last_other[:, 0],
                "share": share[at],
            },
        )
