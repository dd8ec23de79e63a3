"""A finished run, read back from its folder: no network, no data set, no GPU."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from smoothing.fingerprint import difference
from smoothing.images import hash_of_images
from srs.evaluation.evaluate import Results, evaluate
from srs.geometry import Points, is_bytes
from srs.modes import Mode
from srs.report.summary import summarize
from srs.run.folder import REGIONS, SUMMARY, read_description
from srs.run.map import read_summary, run_map
from srs.run.router import router_record
from srs.run.run_settings import RunSettings
from srs.run.version_1 import OldRows
from srs.run.votes import Record, images_of, read_record, vote_files
from training import ByteImages

#: What earlier versions called the entries of a summary, and what they are called now.
_FORMER = {"clean_accuracy": "clean_accuracy_base"}


@dataclass(frozen=True, eq=False)
class StoredRun:
    """What a run's folder holds.

    Attributes
    ----------
    folder : Path
    config, manifest : dict
        What `config.yaml` and `manifest.json` hold: its settings, and what its rows belong to.
    settings : RunSettings
        The settings, as `config` has them.
    record : Record
        Its rows.
    points : array of shape (n, d)
        The images, flattened: float64, or bytes in the file of the map, which stand for p / 255.
    summary : dict
        What it said when it came to its end.
    """

    folder: Path
    config: dict[str, Any]
    manifest: dict[str, Any]
    settings: RunSettings
    record: Record
    points: Points
    summary: dict[str, Any]

    @property
    def images(self) -> Float32[np.ndarray, "n c h w"] | ByteImages:
        """The images, pixels in [0, 1]."""
        shaped = self.points.reshape(-1, *self.manifest["data"]["shape"])
        return ByteImages(shaped) if is_bytes(shaped) else shaped.astype(np.float32)

    @property
    def alpha(self) -> float:
        """The failure probability that the run was made for."""
        return self.settings.alpha

    @property
    def day(self) -> str | None:
        """The day on which the run's last file, its summary, was written, as the file system has it, in UTC.

        A run does not record it: None where that is no date. A copy keeps it where copying keeps the times of files.
        """
        try:
            return datetime.fromtimestamp((self.folder / SUMMARY).stat().st_mtime, UTC).date().isoformat()
        except (ValueError, OverflowError):
            return None

    @property
    def main(self) -> Mode:
        """What the run certifies with."""
        return self.settings.mode

    def evaluate(self, alpha: float | None = None) -> Results:
        """Compute everything anew from the rows, at the run's alpha or another; see `evaluation.evaluate`."""
        level = self.alpha if alpha is None else alpha
        return evaluate(self.record, self.points, self.main, level, self.settings.sampler)

    def disagreement(self, results: Results) -> str | None:
        """Say where `summary.json` is not what the rows give at the run's alpha; None where they agree."""
        computed = json.loads(json.dumps(summarize(results, self.config, self.manifest)))
        stored = {_FORMER.get(name, name): value for name, value in self.summary.items()}
        found = difference(_as_far_as(computed, stored), stored)
        if found is None:
            return None
        key, ours, theirs = found
        return (
            f"{self.folder / SUMMARY} says {key} = {theirs}, the rows give {ours}: it was changed, or made with other "
            "versions; the numbers here come from the rows"
        )


def _as_far_as(computed: Any, stored: Any) -> Any:
    """Return what is computed without the names that earlier versions did not write."""
    if not isinstance(computed, dict) or not isinstance(stored, dict):
        return computed
    return {name: _as_far_as(value, stored[name]) for name, value in computed.items() if name in stored}


def load_run(folder: str | PathLike[str]) -> StoredRun:
    """Read a finished run.

    Raises
    ------
    ValueError
        Where there is none, where it has not come to its end, where a newer version wrote it, or where a file is
        damaged; the message names it and says what to do.
    """
    folder = Path(folder)
    described = read_description(folder)
    settings, manifest = described.settings, described.manifest
    sigmas = np.array(manifest["sigmas"], dtype=np.float64)
    summary = read_summary(folder)
    idx, classes = images_of(folder), manifest["data"]["num_classes"]
    if manifest["format"] == 1:
        record = OldRows(folder, idx, sigmas, settings.chosen_only, classes, settings.n0, settings.n).read()
    else:
        router = router_record(manifest)
        record = read_record(vote_files(folder, settings, idx, sigmas, classes, router), router)
    points = run_map(folder, manifest, summary).centres
    stored = StoredRun(folder, described.config, manifest, settings, record, points, summary)
    images = stored.images
    exact = is_bytes(points) or np.array_equal(np.asarray(images).reshape(len(points), -1), points)  # they are float32
    if not exact or hash_of_images(images, record.idx, record.label) != manifest["data"]["sha256"]:
        raise ValueError(f"{folder}: its images or labels are not those it was made of; restore {REGIONS} and the rows")
    return stored
