"""Each training image's noise level (Eq. 5), for finetuning."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float64, Int64

from smoothing import SmoothedClassifier
from smoothing.machine import processes
from smoothing.progress import Counter, Progress
from training.byte_images import ByteImages
from training.data import FolderImages

if TYPE_CHECKING:
    from accelerate import PartialState

#: Images between two writes of what was chosen. The choice does not depend on it.
CHUNK_IMAGES = 256

#: Added to training images' indices, so that their noise is not that of the test images of the same index.
FIRST_INDEX = 2**31


def choose_levels(
    classifier: SmoothedClassifier,
    images: np.ndarray | ByteImages | FolderImages,
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
        A file that grows with what was chosen; called again after an interruption, with a classifier of the same
        weights, the work goes on where it was. Under several processes each has one, with its rank added to the name.
    progress : bool or callable, default=False
        Show a bar on stderr, or call progress(stage, done, total) from time to time.
    """
    group = processes()
    mine = np.array_split(np.arange(len(labels)), group.num_processes)[group.process_index]
    file = None if partial is None else Path(f"{partial}.{group.process_index}-of-{group.num_processes}")
    chosen = _resumed(file, len(mine))
    with Counter(group.is_main_process and progress, "choose sigma", len(mine), len(chosen)) as counter:
        for start in range(len(chosen), len(mine), CHUNK_IMAGES):
            rows = mine[start : start + CHUNK_IMAGES]
            choice = classifier.select_training_sigma(
                images[rows], labels[rows], sigmas, n0=n0, alpha=alpha, racing=racing, indices=FIRST_INDEX + rows
            )
            chosen = np.concatenate([chosen, choice.sigma])
            if file is not None:
                with file.open("ab") as stream:
                    stream.write(choice.sigma.astype("<f8").tobytes())
            counter.advance(len(rows))
    return _gathered(chosen, group)


def _resumed(file: Path | None, n: int) -> Float64[np.ndarray, " done"]:
    """Return the whole chunks that an earlier attempt wrote, and cut off a torn one."""
    if file is None or not file.exists():
        return np.empty(0)
    done = np.frombuffer(file.read_bytes()[: file.stat().st_size // 8 * 8], dtype="<f8")
    whole = n if len(done) >= n else len(done) // CHUNK_IMAGES * CHUNK_IMAGES
    os.truncate(file, 8 * whole)
    return done[:whole].astype(np.float64)


def _gathered(chosen: Float64[np.ndarray, " mine"], group: "PartialState") -> Float64[np.ndarray, " n"]:
    if group.num_processes == 1:
        return chosen
    from accelerate.utils import gather_object

    return np.concatenate([np.asarray(part) for part in gather_object([chosen])])
