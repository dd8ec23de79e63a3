"""The whole method on one data set: choose sigma, certify, allocate.

Every step hands plain arrays to the next. Labels are carried along for the report; choosing, certifying and allocating
do not see them.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64
from tqdm import tqdm

import regions
from smoothing import ABSTAIN, Certificates, SmoothedClassifier
from srs.inputs import completed, load
from srs.settings import CertifySettings
from training import accuracy

#: Ways to size the regions, all sound: points, R and each point's level to an allocation.
ALLOCATIONS: Mapping[str, Callable[[np.ndarray, np.ndarray, np.ndarray], regions.Allocation]] = {
    "ascending": lambda points, R, level: regions.allocate(points, R, method="greedy", order="ascending"),
    "descending": lambda points, R, level: regions.allocate(points, R, method="greedy", order="descending"),
    "lp": lambda points, R, level: regions.allocate(points, R, method="lp"),
    # Regions of one sigma may overlap: sigma is constant on their union, which is all that the theorem asks.
    "lp-groups": lambda points, R, level: regions.allocate(points, R, method="lp", groups=level),
}

#: Images between two steps of the progress bar. Results do not depend on it.
CHUNK_IMAGES = 16


@dataclass(frozen=True, eq=False)
class Levels:
    """Every image's level with the certificate there, and certificates at constant levels to compare with.

    Attributes
    ----------
    sigmas : array of shape (k,)
        The grid.
    level : int array of shape (n,)
        Which level was chosen, from selection samples only.
    chosen : Certificates
        At the chosen levels.
    constant : mapping of float to Certificates
        All images at one level of the grid; empty where that was not asked for.
    seconds : array of shape (n,)
        Each image's share of the wall time of choosing its level and certifying it there.
    """

    sigmas: Float64[np.ndarray, " k"]
    level: Int64[np.ndarray, " n"]
    chosen: Certificates
    constant: Mapping[float, Certificates]
    seconds: Float64[np.ndarray, " n"]

    @property
    def sigma(self) -> Float64[np.ndarray, " n"]:
        """Each image's noise level."""
        return np.asarray(self.sigmas[self.level])


@dataclass(frozen=True, eq=False)
class Run:
    """Everything a report needs.

    Attributes
    ----------
    settings : CertifySettings
        As given.
    data_name, device : str
        Which images, and where the classifier ran.
    indices, labels : int arrays of shape (n,)
        The certified images' indices in the test set, and their true classes.
    points : array of shape (n, d)
        The images, flattened: the centres of the regions.
    levels : Levels
        Certificates at every noise level.
    allocations : mapping of str to regions.Allocation
        One for each entry of `ALLOCATIONS`.
    clean_accuracy : float
        Of the base classifier on these images, without noise.
    seconds : mapping of str to float
        Wall time of each stage.
    """

    settings: CertifySettings
    data_name: str
    device: str
    indices: Int64[np.ndarray, " n"]
    labels: Int64[np.ndarray, " n"]
    points: Float64[np.ndarray, "n d"]
    levels: Levels
    allocations: Mapping[str, regions.Allocation]
    clean_accuracy: float
    seconds: Mapping[str, float]


def run(settings: CertifySettings, *, progress: bool = False) -> Run:
    """Certify a base classifier on its test images and size their regions.

    Parameters
    ----------
    settings : CertifySettings
    progress : bool, default=False
        Show bars on stderr.

    Raises
    ------
    ValueError
        On settings that cannot be honoured and files that cannot be used.
    OSError
        Where the checkpoint cannot be opened.
    """
    settings.check()
    settings = completed(settings)
    seconds: dict[str, float] = {}
    with _timed("load" if settings.checkpoint else "train", seconds):
        inputs = load(settings, progress=progress)
    classifier = SmoothedClassifier(
        inputs.model,
        inputs.data.num_classes,
        precision=str(settings.precision),
        batch_size=settings.batch,
        seed=settings.seed,
        device=inputs.device,
    )
    with _timed("certify", seconds):
        levels = certify_levels(
            classifier,
            inputs.images,
            inputs.sigmas,
            settings.n0,
            settings.n,
            settings.alpha,
            rule=settings.rule,
            racing=settings.racing,
            chosen_only=settings.chosen_only,
            indices=inputs.indices,
            progress=progress,
        )
    points = inputs.images.reshape(len(inputs.images), -1).astype(np.float64)
    with _timed("allocate", seconds):
        allocations = {
            name: allocate(points, levels.chosen.radius, levels.level) for name, allocate in ALLOCATIONS.items()
        }
    clean = accuracy(inputs.model, inputs.images, inputs.labels, device=inputs.device)
    return Run(
        settings,
        inputs.data.name,
        inputs.device,
        inputs.indices,
        inputs.labels,
        points,
        levels,
        allocations,
        clean,
        seconds,
    )


def certify_levels(
    classifier: SmoothedClassifier,
    images: Float32[np.ndarray, "n c h w"],
    sigmas: Float64[np.ndarray, " k"],
    n0: int,
    n: int,
    alpha: float,
    *,
    rule: str = "max-radius",
    racing: bool = False,
    chosen_only: bool = False,
    indices: Int64[np.ndarray, " n"],
    progress: bool = False,
) -> Levels:
    """Choose a noise level for every image (Eq. 7), certify it there, and at every level of the grid to compare with.

    With probability at least 1 - alpha, per image: the certificate at the chosen level holds. The same is true of the
    certificate at any one level that was fixed beforehand, but not of all of them at once.

    Parameters
    ----------
    classifier : SmoothedClassifier
    images : float32 array of shape (n, C, H, W)
        Pixels in [0, 1].
    sigmas : array of shape (k,)
        The grid, increasing.
    n0, n : int
        Selection and estimation samples per image and level.
    alpha : float
        Failure probability per image.
    rule, racing
        As in `SmoothedClassifier.select_sigma`.
    chosen_only : bool, default=False
        Leave out the levels that an image did not choose.
    indices : int array of shape (n,)
        Names the images' noise streams.
    progress : bool, default=False
        Show a bar on stderr.
    """
    parts = []
    with tqdm(total=len(images), desc="certify", unit="image", leave=False, disable=not progress) as bar:
        for start in range(0, len(images), CHUNK_IMAGES):
            chunk, names = images[start : start + CHUNK_IMAGES], indices[start : start + CHUNK_IMAGES]
            began = time.perf_counter()
            choice = classifier.select_sigma(
                chunk, sigmas, n0, rule, alpha, n=None if rule == "max-radius" else n, racing=racing, indices=names
            )
            selecting = time.perf_counter() - began

            # An image's estimation samples are named by (seed, stage, index): certifying it at its chosen level alone
            # draws exactly those of the whole table, so its certificate is an entry of the table. Looking it up is
            # sound because the selection samples picked the entry; the estimation samples had no say in it.
            began = time.perf_counter()
            if chosen_only:
                constant: tuple[Certificates, ...] = ()
                chosen = classifier.certify_classes(chunk, choice.sigma, choice.predict, n, alpha, indices=names)
            else:
                constant = classifier.certify_levels(chunk, sigmas, choice.classes, n, alpha, indices=names)
                chosen = _picked(constant, choice.level)
            estimating = (time.perf_counter() - began) / max(1, len(constant))
            seconds = np.full(len(chunk), (selecting + estimating) / len(chunk))
            parts.append((choice.level, chosen, constant, seconds))
            bar.update(len(chunk))
    level, chosen_parts, constant_parts, seconds_parts = zip(*parts, strict=True)
    return Levels(
        sigmas,
        np.concatenate(level),
        _joined(chosen_parts),
        {
            float(sigma): _joined(at_level)
            for sigma, at_level in zip(sigmas, zip(*constant_parts, strict=True), strict=False)
        },
        np.concatenate(seconds_parts),
    )


#: The entries of certificates that are one per image.
_PER_IMAGE = ("predict", "radius", "sigma", "counts", "n", "p_lower")


def _joined(parts: Sequence[Certificates]) -> Certificates:
    joined: dict[str, Any] = {name: np.concatenate([getattr(part, name) for part in parts]) for name in _PER_IMAGE}
    return replace(parts[0], **joined)


def _picked(table: Sequence[Certificates], level: Int64[np.ndarray, " n"]) -> Certificates:
    """Return each image's entry at its level."""
    rows = np.arange(len(level))
    picked: dict[str, Any] = {
        name: np.stack([getattr(column, name) for column in table])[level, rows] for name in _PER_IMAGE
    }
    return replace(table[0], **picked)


def allocated(
    predict: Int64[np.ndarray, " n"], R: Float64[np.ndarray, " n"], r: Float64[np.ndarray, " n"]
) -> tuple[Int64[np.ndarray, " n"], Float64[np.ndarray, " n"]]:
    """Return what is left of certificates (predict, R) inside regions of radius r: class and min(R, r), both (n,).

    A region of radius 0 is empty: sigma is constant nowhere around its centre, and its image counts as abstaining.
    """
    inside: Bool[np.ndarray, " n"] = r > 0
    return np.where(inside, predict, ABSTAIN), np.minimum(R, r)


@contextmanager
def _timed(stage: str, seconds: dict[str, float]) -> Iterator[None]:
    start = time.perf_counter()
    yield
    seconds[stage] = time.perf_counter() - start
