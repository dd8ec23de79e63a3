"""Each training image's noise level (Eq. 5), for finetuning."""

import os

import numpy as np
from jaxtyping import Float64, Int64

from smoothing import SmoothedClassifier
from smoothing.progress import Progress
from training.chunks import FIRST_INDEX, in_chunks
from training.data import Images


def choose_levels(
    classifier: SmoothedClassifier,
    images: Images,
    labels: Int64[np.ndarray, " n"],
    *,
    sigmas: Float64[np.ndarray, " k"],
    n0: int = 500,
    alpha: float = 0.001,
    racing: bool = True,
    partial: str | os.PathLike[str] | None = None,
    progress: bool | Progress = False,
) -> Float64[np.ndarray, " n"]:
    """Return the level of the grid where each image's label has the largest certified radius (Eq. 5).

    Looks at labels: for training only. An image whose label wins nowhere gets the smallest level, where it is easiest
    to learn.

    Parameters
    ----------
    classifier : SmoothedClassifier
        The pretrained model.
    images, labels
        Training images and their classes.
    sigmas : array of shape (k,)
        The grid, increasing.
    n0, alpha, racing
        As in `SmoothedClassifier.select_training_sigma`.
    partial : path, optional
        As in `in_chunks`: what was chosen is kept there, for a classifier of the same weights.
    progress : bool or callable, default=False
        Show a bar on stderr, or call progress(stage, done, total) from time to time.
    """

    def choose(rows: Int64[np.ndarray, " b"]) -> Float64[np.ndarray, "b 1"]:
        choice = classifier.select_training_sigma(
            images[rows], labels[rows], sigmas, n0=n0, alpha=alpha, racing=racing, indices=FIRST_INDEX + rows
        )
        return choice.sigma[:, None]

    return in_chunks(choose, len(labels), 1, title="choose sigma", partial=partial, progress=progress)[:, 0]
