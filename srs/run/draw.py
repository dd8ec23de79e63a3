"""Choosing sigma and certifying, written down as it happens: a run that is killed goes on where it was.

Labels are written beside the rows for reports; choosing, certifying and allocating do not see them.
"""

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Float64, Int64
from tqdm import tqdm

import regions
from smoothing import SmoothedClassifier
from smoothing.runs import FULL_BATCHES
from srs.run.inputs import Inputs
from srs.run.votes import Limits, RecordFiles, SelectionRows

#: Most images between two times that rows are written.
MOST_TOGETHER = 16


def record_run(folder: Path, inputs: Inputs, classifier: SmoothedClassifier, *, progress: bool = False) -> None:
    """Draw and count all samples of a run, from where its files stand.

    1. Selection samples: every image at every level (`selection.tsv`).
    2. Each image's level, by them alone (`levels.tsv`).
    3. Estimation samples, fresh: every image at every level, or at its own (`estimation.tsv`).

    Rows do not depend on interruptions. An image's estimation samples are named by (seed, stage, index), so its row at
    its level is the one that certifying it there alone would give; looking it up among the others is sound because
    selection samples picked it.
    """
    files = record_files(folder, inputs)
    _select(files, inputs, classifier, progress)
    selected = files.selected()
    level = files.levels()
    if level is None:
        level = choose_levels(inputs, selected)
        files.write_levels(level)
    _estimate(files, inputs, classifier, selected, level, progress)


def record_files(folder: Path, inputs: Inputs) -> RecordFiles:
    """Return the files of a run's record."""
    settings = inputs.settings
    limits = Limits(inputs.data.num_classes, settings.n0, settings.n)
    return RecordFiles(folder, inputs.indices, inputs.sigmas, settings.chosen_only, limits)


def choose_levels(inputs: Inputs, selected: SelectionRows) -> Int64[np.ndarray, " n"]:
    """Return each image's level, from selection samples: the one ranked highest, or a choice for all together."""
    if inputs.settings.overlap != "joint":
        return np.asarray(selected.ranked.argmax(axis=1))
    points = inputs.images.reshape(len(inputs.images), -1)
    return regions.allocate_levels(points, inputs.sigmas, selected.ranked).level


def _select(files: RecordFiles, inputs: Inputs, classifier: SmoothedClassifier, progress: bool) -> None:
    settings, n = inputs.settings, len(inputs.images)
    alpha = settings.mode.share(settings.alpha, n)
    with files.append_selection() as append:
        done = len(files.selected().label)
        together = _together(classifier, settings.n0 * len(inputs.sigmas))
        for images in _chunks("select", done, n, together, progress):
            began = time.perf_counter()
            pixels = inputs.images[images]
            choice = classifier.select_sigma(
                pixels,
                inputs.sigmas,
                settings.n0,
                settings.rule,
                alpha,
                n=None if settings.rule == "max-radius" else settings.n,
                racing=settings.racing,
                indices=inputs.indices[images],
            )
            clean = clean_classes(inputs, classifier, pixels)
            append(images, inputs.labels[images], clean, choice, time.perf_counter() - began)


def _estimate(
    files: RecordFiles,
    inputs: Inputs,
    classifier: SmoothedClassifier,
    selected: SelectionRows,
    level: Int64[np.ndarray, " n"],
    progress: bool,
) -> None:
    settings, n = inputs.settings, len(inputs.images)
    with files.append_estimation() as append:
        done = files.estimated(selected, level)
        levels = 1 if settings.chosen_only else len(inputs.sigmas)
        for images in _chunks("certify", done, n, _together(classifier, settings.n * levels), progress):
            began = time.perf_counter()
            pixels, names = inputs.images[images], inputs.indices[images]
            if settings.chosen_only:
                classes = selected.classes[images][np.arange(len(names)), level[images]]
                sigma = inputs.sigmas[level[images]]
                alone = classifier.certify_classes(pixels, sigma, classes, settings.n, settings.alpha, indices=names)
                append(images, classes[:, None], [alone], time.perf_counter() - began)
            else:
                table = selected.classes[images]
                found = classifier.certify_levels(
                    pixels, inputs.sigmas, table, settings.n, settings.alpha, indices=names
                )
                append(images, table, found, time.perf_counter() - began)


def clean_classes(
    inputs: Inputs, classifier: SmoothedClassifier, images: Float32[np.ndarray, "b c h w"]
) -> Int64[np.ndarray, "b k"]:
    """Return the class that each level's base classifier gives each image without noise."""
    return classifier.base_predict(images, inputs.sigmas)


def points_of(inputs: Inputs) -> Float64[np.ndarray, "n d"]:
    """Return the images as points: the centres of the regions."""
    return inputs.images.reshape(len(inputs.images), -1).astype(np.float64)


def _together(classifier: SmoothedClassifier, samples: int) -> int:
    """Return how many images, of so many samples each, are certified between two writes: enough to fill batches."""
    full = FULL_BATCHES * classifier.batch_size * classifier.threads
    return max(1, min(MOST_TOGETHER, full // samples))


def _chunks(stage: str, done: int, n: int, together: int, progress: bool) -> Iterator[slice]:
    with tqdm(total=n, initial=done, desc=stage, unit="image", leave=False, disable=not progress) as bar:
        for start in range(done, n, together):
            images = slice(start, min(start + together, n))
            yield images
            bar.update(images.stop - start)
