"""What is compared: certification logs of any method, and finished runs; each read, checked, and about the same images.

Nothing is guessed: what neither the file nor the user says stays unknown.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64

from smoothing import ABSTAIN, CertificateTable
from smoothing.images import RunImages
from srs.evaluation.rules import Answers
from srs.labels import named_paths, of_each
from srs.logs.read import check_same, is_two_sided, read_log
from srs.report.finished_run import StoredRun, load_run
from srs.run.folder import CERTIFICATES
from srs.score.settings import ScoreSettings, parse_alpha, parse_bound, parse_samples, parse_setting


@dataclass(frozen=True, eq=False)
class Entry:
    """One method's certificates.

    Attributes
    ----------
    path : Path
    table : CertificateTable
        Images in the order of their indices.
    setting, bound : str or None
        "transductive" or "inductive"; "one-sided" or "full". None: nobody says.
    samples : float or None
        Noisy images per image, in the mean.
    all_samples : bool
        Whether those that chose something are among them.
    alpha : float or None
        Failure probability of each certificate.
    images : str or None
        Hash of the images, where they are known.
    """

    path: Path
    table: CertificateTable
    setting: str | None = None
    bound: str | None = None
    samples: float | None = None
    all_samples: bool = True
    alpha: float | None = None
    images: str | None = None

    @property
    def answers(self) -> Answers:
        """What is certified."""
        predict = self.table.predict
        radius = np.where(predict == ABSTAIN, 0.0, self.table.radius)
        return Answers(label=self.table.label, predict=predict, radius=radius)


def read_entries(settings: ScoreSettings) -> dict[str, Entry]:
    """Read all that is named, by name.

    Raises
    ------
    ValueError
        Where a file is damaged; where two are about different images, naming the first difference; where a flag
        contradicts what a run knows.
    OSError
        Where a file cannot be opened.
    """
    paths = named_paths(settings.logs, "LOG")
    said: dict[str, Mapping[str, Any]] = {
        "setting": of_each(settings.setting, paths, "--setting", parse_setting),
        "bound": of_each(settings.bound, paths, "--bound", parse_bound),
        "samples": of_each(settings.samples, paths, "--samples", parse_samples),
        "alpha": of_each(settings.alpha, paths, "--alpha", parse_alpha),
    }
    found: dict[str, Entry] = {}
    for name, path in paths.items():
        entry = _run(path) if path.is_dir() else _log(path)
        entry = _completed(name, entry, {what: values[name] for what, values in said.items() if name in values})
        for other in list(found.values())[:1]:
            _check_same(other, entry)
        for other in found.values():
            _check_pixels(other, entry)
        found[name] = entry
    return found


def _log(path: Path) -> Entry:
    table = read_log(path)
    drawn, share = table.extra.get("n"), table.extra.get("share")
    counted = drawn is not None and drawn.dtype.kind in "iu" and bool((drawn > 0).all())
    return Entry(
        path,
        _ordered(table),
        bound=None if share is None else "full" if is_two_sided(table) else "one-sided",
        samples=float(np.mean(drawn)) if drawn is not None and counted else None,
        all_samples=False,
    )


def _run(path: Path) -> Entry:
    stored = load_run(path)
    record, file = stored.record, path / CERTIFICATES
    table = read_log(file)
    if not np.array_equal(table.idx, record.idx) or not np.array_equal(table.label, record.label):
        raise ValueError(f"{file} is not about the run's images: it has other indices or labels; restore it")
    order = np.argsort(record.idx, kind="stable")
    return Entry(
        path,
        _ordered(table),
        setting="transductive" if stored.main.has_regions else "inductive",
        bound="full" if record.share.any() else "one-sided",
        samples=_spent(stored) / len(record.idx),
        alpha=stored.main.share(stored.alpha, len(record.idx)),
        images=RunImages(stored.images, order).sha256(),
    )


def _spent(stored: StoredRun) -> int:
    """Return how many noisy images a run was made of."""
    record = stored.record
    spent = record.samples.sum() + record.counts.drawn.sum()
    if record.routing is not None and record.routing.sigma is not None:
        spent += record.routing.selected.sum() + record.routing.estimated.sum()
    return int(spent)


def _ordered(table: CertificateTable) -> CertificateTable:
    order: Int64[np.ndarray, " n"] = np.argsort(table.idx, kind="stable")
    names = ("idx", "label", "predict", "radius", "correct", "seconds", "lines")
    return replace(table, extra={}, **{name: getattr(table, name)[order] for name in names})


def _check_same(first: Entry, entry: Entry) -> None:
    rows = np.arange(len(first.table.idx)), np.arange(len(entry.table.idx))
    check_same(first.path, first.table, rows[0], entry.path, entry.table, rows[1])


def _check_pixels(other: Entry, entry: Entry) -> None:
    """Raise where two runs are known to be about images that differ."""
    if other.images is None or entry.images is None or other.images == entry.images:
        return
    raise ValueError(
        f"{entry.path} has other images than {other.path}, with the same numbers and labels: their hashes are "
        f"{entry.images[:12]}... and {other.images[:12]}...; give runs of the same images"
    )


def _completed(name: str, entry: Entry, said: Mapping[str, Any]) -> Entry:
    """Return the entry with what the user says of it; what the file knows is not to be changed."""
    for what, value in said.items():
        known = getattr(entry, what)
        if what == "samples" and not entry.all_samples:
            known = None
        if known is not None and known != value:
            raise ValueError(f"--{what} {name}={value}: {entry.path} says {known}; leave it out")
    return replace(entry, **said, all_samples=entry.all_samples or "samples" in said)
