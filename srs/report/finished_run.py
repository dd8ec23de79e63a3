"""A finished run, read back from its folder: no network, no data set, no GPU."""

import json
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Float64

import regions
from smoothing._voting.samplers import SAMPLERS
from smoothing.fingerprint import difference, hash_arrays
from srs.evaluation.evaluate import Results, evaluate
from srs.modes import GROUPS, Mode
from srs.modes import main_mode as mode_of
from srs.report.summary import summarize
from srs.run.folder import CONFIG, REGIONS, SUMMARY, read_description
from srs.run.settings import CertifySettings
from srs.run.votes import Record, RecordFiles


@dataclass(frozen=True, eq=False)
class StoredRun:
    """What a run's folder holds.

    Attributes
    ----------
    folder : Path
    config, manifest : dict
        Its settings, and what its rows belong to.
    record : Record
        Its rows.
    points : array of shape (n, d)
        The images, flattened.
    """

    folder: Path
    config: dict[str, Any]
    manifest: dict[str, Any]
    record: Record
    points: Float64[np.ndarray, "n d"]

    @property
    def images(self) -> Float32[np.ndarray, "n c h w"]:
        """The images, pixels in [0, 1]."""
        return _images(self.points, self.manifest)

    @property
    def alpha(self) -> float:
        """The failure probability that the run was made for."""
        return float(self.config["alpha"])

    @property
    def main(self) -> Mode:
        """What the run certifies with."""
        known = {name: self.config[name] for name in ("overlap", "method", "order")}
        return mode_of(CertifySettings(**known))

    def evaluate(self, alpha: float | None = None) -> Results:
        """Compute everything anew from the rows, at the run's alpha or another; see `results.evaluate`."""
        level = self.alpha if alpha is None else alpha
        return evaluate(self.record, self.points, self.main, level, self.config["sampler"])

    def disagreement(self, results: Results) -> str | None:
        """Say where `summary.json` is not what the rows give at the run's alpha; None where they agree."""
        try:
            stored = json.loads((self.folder / SUMMARY).read_text(encoding="utf-8"))
        except (ValueError, OSError):
            return f"{self.folder / SUMMARY} cannot be read; the numbers here come from the rows"
        found = difference(json.loads(json.dumps(summarize(results, self.config, self.manifest))), stored)
        if found is None:
            return None
        key, ours, theirs = found
        return (
            f"{self.folder / SUMMARY} says {key} = {theirs}, the rows give {ours}: it was changed, or made with other "
            "versions; the numbers here come from the rows"
        )


def load_run(folder: str | PathLike[str]) -> StoredRun:
    """Read a finished run.

    Raises
    ------
    ValueError
        Where there is none, where it has not come to its end, where a newer version wrote it, or where a file is
        damaged; the message names it and says what to do.
    """
    folder = Path(folder)
    config, manifest = read_description(folder)
    try:
        sigmas = np.array(manifest["sigmas"], dtype=np.float64)
        files = RecordFiles.existing(folder, sigmas, bool(config["chosen_only"]))
        if not (folder / SUMMARY).is_file():
            raise ValueError(f"{folder}: the run has not come to its end; go on with srs-certify --resume")
        if (
            config["overlap"] not in GROUPS
            or not isinstance(config["alpha"], float)
            or config["sampler"] not in SAMPLERS
        ):
            raise ValueError(f"{folder / CONFIG} is damaged: restore it")
        record = files.read()
        stored = StoredRun(folder, config, manifest, record, _points(folder))
        digest = hash_arrays(_images(stored.points, manifest), record.idx, record.label)
        expected = manifest["data"]["sha256"]
    except (KeyError, TypeError) as error:
        raise ValueError(f"{folder}: its description lacks {error}; restore config.yaml and manifest.json") from error
    if digest != expected:
        raise ValueError(f"{folder}: its images or labels are not those it was made of; restore {REGIONS} and the rows")
    return stored


def _points(folder: Path) -> Float64[np.ndarray, "n d"]:
    try:
        return regions.RegionMap.load(folder / REGIONS).centres
    except FileNotFoundError:
        raise ValueError(f"{folder / REGIONS}: no such file; make it anew with srs-certify --resume") from None


def _images(points: Float64[np.ndarray, "n d"], manifest: dict[str, Any]) -> Float32[np.ndarray, "n c h w"]:
    shape = tuple(manifest["data"]["shape"])
    if len(shape) != 3 or points.shape[1] != np.prod(shape):
        raise ValueError(f"{REGIONS} holds points of {points.shape[1]} coordinates, not images of {shape}: restore it")
    return points.reshape(-1, *shape).astype(np.float32)
