"""The whole method on one data set: train, choose sigma, certify, allocate.

Every step hands plain arrays to the next. Labels go into training, and are carried along for the report; choosing,
certifying and allocating do not see them.
"""

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float32, Float64, Int64
from tqdm import tqdm

import regions
from smoothing import ABSTAIN, SmoothedClassifier, sigma_grid
from smoothing.threads import one_thread_each
from srs.settings import CertifySettings
from training import Engine, Stage, accuracy, build, digits, fit

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
    """Certificates of every image at every noise level, and the level chosen for each image.

    Attributes
    ----------
    sigmas : array of shape (k,)
        The grid.
    level : int array of shape (n,)
        Which level was chosen, from selection samples only.
    predict : int array of shape (n, k)
        Certified class, -1 where abstained.
    radius, p_lower : arrays of shape (n, k)
        Certified radius R(x, sigma) and the bound behind it, from estimation samples only.
    seconds : array of shape (n,)
        Each image's share of the wall time of choosing its level and certifying it there.
    """

    sigmas: Float64[np.ndarray, " k"]
    level: Int64[np.ndarray, " n"]
    predict: Int64[np.ndarray, "n k"]
    radius: Float64[np.ndarray, "n k"]
    p_lower: Float64[np.ndarray, "n k"]
    seconds: Float64[np.ndarray, " n"]

    def chosen(self, table: np.ndarray) -> np.ndarray:
        """Return each image's entry of an (n, k) table at its chosen level, shape (n,)."""
        return np.asarray(table[np.arange(len(self.level)), self.level])


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


def run(settings: CertifySettings) -> Run:
    """Train on the digits, then certify their test images; raises `ValueError` on settings that cannot be honoured."""
    settings.check()
    sigmas = sigma_grid(settings.sigma_min, settings.sigma_max, settings.sigma_step)
    device = _device(settings.device)
    seconds: dict[str, float] = {}

    data = digits()
    model = build("digits_cnn", data.num_classes, seed=settings.seed)
    classifier = SmoothedClassifier(
        model, data.num_classes, batch_size=settings.batch, seed=settings.seed, device=device
    )
    with _timed("train", seconds), one_thread_each():
        fit(
            model,
            data.train_images,
            data.train_labels,
            Stage(
                epochs=60,
                sigma=(settings.sigma_min, settings.sigma_max),
                lr=3e-3,
                optimizer="adam",
                weight_decay=0.0,
                schedule="cosine",
                batch_size=128,
            ),
            Engine(device=device),
            seed=settings.seed,
            progress=sys.stderr.isatty(),
        )

    indices = np.arange(0, len(data.test_images), settings.skip)[: settings.max]
    images, labels = data.test_images[indices], data.test_labels[indices]
    with _timed("certify", seconds):
        levels = certify_levels(
            classifier,
            images,
            sigmas,
            settings.n0,
            settings.n,
            settings.alpha,
            indices=indices,
            progress=True,
        )

    points = images.reshape(len(images), -1).astype(np.float64)
    R = levels.chosen(levels.radius)
    with _timed("allocate", seconds):
        allocations = {name: allocate(points, R, levels.level) for name, allocate in ALLOCATIONS.items()}

    clean = accuracy(model, images, labels, device=device)
    return Run(settings, data.name, device, indices, labels, points, levels, allocations, clean, seconds)


def certify_levels(
    classifier: SmoothedClassifier,
    images: Float32[np.ndarray, "n c h w"],
    sigmas: Float64[np.ndarray, " k"],
    n0: int,
    n: int,
    alpha: float,
    *,
    indices: Int64[np.ndarray, " n"],
    progress: bool = False,
) -> Levels:
    """Choose a noise level for every image (Eq. 7) and certify it at every level of the grid.

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
    indices : int array of shape (n,)
        Names the images' noise streams.
    progress : bool, default=False
        Show a bar on stderr where that is a terminal.
    """
    parts = []
    with tqdm(total=len(images), desc="certify", unit="image", leave=False, disable=None if progress else True) as bar:
        for start in range(0, len(images), CHUNK_IMAGES):
            chunk = slice(start, start + CHUNK_IMAGES)
            parts.append(_certify_chunk(classifier, images[chunk], sigmas, n0, n, alpha, indices[chunk]))
            bar.update(len(parts[-1].level))
    return Levels(
        sigmas,
        *(
            np.concatenate([getattr(part, name) for part in parts])
            for name in Levels.__annotations__
            if name != "sigmas"
        ),
    )


def _certify_chunk(
    classifier: SmoothedClassifier,
    images: Float32[np.ndarray, "n c h w"],
    sigmas: Float64[np.ndarray, " k"],
    n0: int,
    n: int,
    alpha: float,
    indices: Int64[np.ndarray, " n"],
) -> Levels:
    start = time.perf_counter()
    choice = classifier.select_sigma(images, sigmas, n0, alpha=alpha, indices=indices)
    selecting = time.perf_counter() - start

    # An image's estimation samples are named by (seed, stage, index): certifying it at its chosen level alone would
    # draw exactly these again, so the sample-wise certificate is an entry of this table. Looking it up is sound because
    # the selection samples picked the entry; the estimation samples had no say in it.
    start = time.perf_counter()
    certificates = classifier.certify_levels(images, sigmas, choice.classes, n, alpha, indices=indices)
    estimating = (time.perf_counter() - start) / len(sigmas)
    return Levels(
        sigmas,
        choice.level,
        np.stack([c.predict for c in certificates], axis=1),
        np.stack([c.radius for c in certificates], axis=1),
        np.stack([c.p_lower for c in certificates], axis=1),
        np.full(len(images), (selecting + estimating) / len(images)),
    )


def allocated(
    predict: Int64[np.ndarray, " n"], R: Float64[np.ndarray, " n"], r: Float64[np.ndarray, " n"]
) -> tuple[Int64[np.ndarray, " n"], Float64[np.ndarray, " n"]]:
    """Return what is left of certificates (predict, R) inside regions of radius r: class and min(R, r), both (n,).

    A region of radius 0 is empty: sigma is constant nowhere around its centre, and its image counts as abstaining.
    """
    inside: Bool[np.ndarray, " n"] = r > 0
    return np.where(inside, predict, ABSTAIN), np.minimum(R, r)


def _device(name: str) -> str:
    return ("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name


@contextmanager
def _timed(stage: str, seconds: dict[str, float]) -> Iterator[None]:
    start = time.perf_counter()
    yield
    seconds[stage] = time.perf_counter() - start
