"""Certification runs that survive: rows are appended as images finish, and several processes share the work.

A run that writes `certificates.tsv` keeps `certificates.tsv.run.json` beside it, which says what is being certified,
and until it is finished `certificates.tsv.part0`, `.part1`, ..., one file of rows for every process. Each part is a
valid table but for a last line that was torn when its process was killed.
"""

import glob
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64
from numpy.typing import ArrayLike
from torch import Tensor
from tqdm import tqdm

from smoothing import _validate
from smoothing.adaptive import Ladder
from smoothing.classifier import SmoothedClassifier
from smoothing.confidence import shared_alpha
from smoothing.fingerprint import classifier_difference, difference, hash_arrays
from smoothing.machine import processes
from smoothing.reading import read_json
from smoothing.storage import appending, locked, replacing, whole_lines
from smoothing.tables import (
    COLUMNS,
    CertificateTable,
    parse_certificates,
    read_certificates,
    rows_of,
    write_certificates,
)

#: The columns of a run's table after the six usual ones.
EXTRA = ("sigma", "counts", "n", "p_lower")

#: Batches of every thread that images certified together should fill: then those that are not full cost little.
FULL_BATCHES = 25


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


def certify_to_file(
    path: str | os.PathLike[str],
    classifier: SmoothedClassifier,
    images: ArrayLike | Tensor,
    sigma: ArrayLike | Selection,
    n0: int,
    n: int | Ladder,
    alpha: float = 0.001,
    *,
    labels: ArrayLike | None = None,
    indices: ArrayLike | None = None,
    simultaneous: bool = False,
    progress: bool = False,
) -> CertificateTable:
    """Certify images into a table on disk; killed at any moment and called again, it goes on where it was.

    The finished file is the same, but for the column `time`, whatever interruptions there were and however many
    processes shared the work. Under `torchrun` or `accelerate launch` every process calls this with the same arguments
    (but for the classifier's device), certifies its share and gets the whole table; one process needs no launcher.

    Parameters
    ----------
    path : path
        The table to write, tab separated: idx, label, predict, radius, correct, time, then sigma, counts, n, p_lower.
        Where it exists already, finished by the same run, it is read and returned.
    classifier : SmoothedClassifier
    images : array or tensor of shape (n, C, H, W)
        Pixels in [0, 1].
    sigma : float, array of shape (n,), or Selection
        Noise levels, or how to choose them.
    n0, n, alpha, indices, simultaneous
        As in `SmoothedClassifier.certify`; `simultaneous` counts all images of the run.
    labels : int array of shape (n,), optional
        True classes, for the columns `label` and `correct` alone; -1 and 0 without.
    progress : bool, default=False
        Show a bar on stderr.

    Returns
    -------
    CertificateTable
        In the order of the images; with the guarantee of `SmoothedClassifier.certify`.

    Raises
    ------
    ValueError
        Where an argument is wrong; where `path` belongs to a run of other images, settings or weights; where another
        process is writing it.
    """
    run = _Run(Path(path), classifier, images, sigma, n0, n, alpha, labels, indices, simultaneous)
    group = processes()
    if group.is_main_process:
        run.begin()
    group.wait_for_everyone()
    run.check()
    if not run.path.exists():
        done = run.done()
        group.wait_for_everyone()  # until everyone has read what was done: only then may parts grow
        with run.part(group.process_index) as append:
            mine = [row for row in range(len(run.indices)) if int(run.indices[row]) not in done][
                group.process_index :: group.num_processes
            ]
            with tqdm(
                total=len(mine),
                desc="certify",
                unit="image",
                leave=False,
                disable=not (progress and group.is_main_process),
            ) as bar:
                for start in range(0, len(mine), run.together):
                    rows = np.array(mine[start : start + run.together])
                    append(run.certify(rows))
                    bar.update(len(rows))
        group.wait_for_everyone()
        if group.is_main_process:
            run.finish()
        group.wait_for_everyone()
    return read_certificates(run.path)


class _Run:
    """One run: its checked arguments, its fingerprint, and its files."""

    def __init__(
        self,
        path: Path,
        classifier: SmoothedClassifier,
        images: ArrayLike | Tensor,
        sigma: ArrayLike | Selection,
        n0: int,
        n: int | Ladder,
        alpha: float,
        labels: ArrayLike | None,
        indices: ArrayLike | None,
        simultaneous: bool,
    ) -> None:
        self.path, self.classifier, self.n = path, classifier, n
        self.images = _validate.check_images(images)
        count = len(self.images)
        self.indices = _validate.check_indices(indices, count)
        if len(np.unique(self.indices)) < count:
            raise ValueError(
                "indices repeat: each image of a run needs an index of its own, which names its row and noise"
            )
        self.labels = np.full(count, -1)
        if labels is not None:
            self.labels = _validate.check_classes("labels", labels, (count,), classifier.num_classes)
        self.n0 = _validate.check_count("n0", n0)
        rungs = n.rungs if isinstance(n, Ladder) else (_validate.check_count("n", n),)
        self.alpha = _validate.check_alpha(alpha)
        self.each = shared_alpha(self.alpha, count) if simultaneous else self.alpha
        self.final = rungs[-1]
        self.sigma = sigma if isinstance(sigma, Selection) else _validate.check_levels(sigma, count)
        if isinstance(self.sigma, Selection):
            grid = _validate.check_grid(self.sigma.sigmas).tolist()
            noise: Any = {"sigmas": grid, "rule": self.sigma.rule, "racing": self.sigma.racing}
        else:
            noise = hash_arrays(self.sigma)
        self.together = max(1, FULL_BATCHES * classifier.batch_size * classifier.threads // rungs[0])
        self.identity = classifier.identity
        self.config = {
            "format": 1,
            "classifier": asdict(self.identity),
            "check": classifier.check_logits(self.images.shape[1:]),
            "images": hash_arrays(self.images.numpy(), self.indices, self.labels),
            "count": count,
            "sigma": noise,
            "n0": self.n0,
            "n": list(rungs),
            "min_gain": n.min_gain if isinstance(n, Ladder) else None,
            "alpha": self.alpha,
            "simultaneous": simultaneous,
        }
        self.about = path.with_name(path.name + ".run.json")

    def begin(self) -> None:
        """Claim the path for this run, or leave it to `check` to compare."""
        if self.about.exists():
            return
        if self.path.exists():
            raise ValueError(f"{self.path} exists, and no run of ours wrote it: name another file")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(self.about) as stream:
            stream.write(json.dumps(self.config, indent=2).encode() + b"\n")

    def check(self) -> None:
        """Refuse to continue a run of something else."""
        other = read_json(self.about, "delete it and the parts beside it to start anew")
        what = classifier_difference(self.config, other)
        if what is None:
            apart = {"classifier": None, "check": None}
            if (found := difference(self.config | apart, other | apart)) is None:
                return
            what = f"{found[0]} ({found[2]}, here {found[1]})"
        raise ValueError(
            f"{self.path} belongs to a run with another {what}: name another file, or delete "
            f"{self.about.name} and what it describes"
        )

    def parts(self) -> list[Path]:
        """Every process's rows, also those of earlier starts with more processes."""
        return sorted(self.path.parent.glob(f"{glob.escape(self.path.name)}.part*[0-9]"))

    def done(self) -> set[int]:
        """Indices of the images whose rows are on disk."""
        tables = [table for part in self.parts() if (table := _rows_of_part(part))]
        return {index for table in tables for index in table.idx.tolist()}

    @contextmanager
    def part(self, rank: int) -> Iterator[Callable[[CertificateTable], None]]:
        """Give a function that appends a table's rows to this process's part."""
        file = self.path.with_name(f"{self.path.name}.part{rank}")
        with (
            locked(file.with_name(file.name + ".lock"), file),
            appending(file, [*COLUMNS, *EXTRA]) as append,
        ):
            yield lambda table: append(rows_of(table))

    def certify(self, rows: Int64[np.ndarray, " rows"]) -> CertificateTable:
        """Certify these rows of the images, wherever the others are certified."""
        start = time.perf_counter()
        images, names = self.images[rows], self.indices[rows]
        if isinstance(self.sigma, Selection):
            choice = self.classifier.select_sigma(
                images,
                np.array(self.sigma.sigmas),
                self.n0,
                self.sigma.rule,
                self.each,
                n=None if self.sigma.rule == "max-radius" else self.final,
                racing=self.sigma.racing,
                indices=names,
            )
            found = self.classifier.certify_classes(
                images, choice.sigma, choice.predict, self.n, self.each, indices=names
            )
        else:
            found = self.classifier.certify(images, self.sigma[rows], self.n0, self.n, self.each, indices=names)
        if found.identity != self.identity:
            raise ValueError(f"{self.path}: the model was changed while it was certified: begin again in another file")
        labels = self.labels[rows]
        return CertificateTable(
            idx=names,
            label=labels,
            predict=found.predict,
            radius=found.radius,
            correct=((found.predict == labels) & (labels >= 0)).astype(np.int64),
            seconds=np.full(len(rows), (time.perf_counter() - start) / len(rows)),
            extra={"sigma": found.sigma, "counts": found.counts, "n": found.n, "p_lower": found.p_lower},
        )

    def finish(self) -> None:
        """Put the parts together in the order of the images, and remove them."""
        tables = [table for part in self.parts() if (table := _rows_of_part(part))]
        held = sorted(index for table in tables for index in table.idx.tolist())
        if held != sorted(self.indices.tolist()):
            raise ValueError(
                f"{self.path}: its parts hold {len(held)} rows for {len(self.indices)} images: delete them to begin"
            )
        write_certificates(self.path, _merged(tables, self.indices))
        for part in self.parts():
            part.unlink()
            part.with_name(part.name + ".lock").unlink(missing_ok=True)


def _rows_of_part(part: Path) -> CertificateTable | None:
    """Return the rows of a part; None where not even its header is whole."""
    lines = whole_lines(part)
    return parse_certificates(part, "\n".join(lines)) if lines else None


def _merged(tables: Sequence[CertificateTable], order: Int64[np.ndarray, " n"]) -> CertificateTable:
    """Return all rows of the tables, in the order of these image indices."""
    idx = np.concatenate([table.idx for table in tables])
    by_index = np.argsort(idx)
    rows = by_index[np.searchsorted(idx, order, sorter=by_index)]

    def column(name: str) -> np.ndarray:
        return np.concatenate([getattr(table, name) for table in tables])[rows]

    return CertificateTable(
        **{name: column(name) for name in ("idx", "label", "predict", "radius", "correct", "seconds")},
        extra={name: np.concatenate([table.extra[name] for table in tables])[rows] for name in EXTRA},
    )
