"""Base classifiers: from checkpoints, of other libraries, from the user's own code, or trained here."""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int64
from torch import nn

from smoothing import SmoothedClassifier
from smoothing.images import ImageSource
from smoothing.machine import one_thread_each
from smoothing.progress import Progress
from srs.run.folder import MODEL, own_file
from srs.run.run_settings import RunSettings, Start
from srs.run.sources import Files, library
from training import (
    DenoisedClassifier,
    Engine,
    ImageData,
    LoadedModel,
    Stage,
    build,
    check_fit,
    fit,
    load_checkpoint,
    load_model,
    save_checkpoint,
)
from training.libraries.labels import check_order
from training.models import is_factory
from training.scaling import restoring


class Named(NamedTuple):
    """A base classifier, what errors call it, and what its library knows of it."""

    model: nn.Module
    source: str
    loaded: LoadedModel | None = None


#: The base classifier of every level, or under None that of all levels.
AllNamed = Mapping[float | None, Named]

#: One base classifier for all levels, or one for each: what `SmoothedClassifier` takes.
Bank = nn.Module | Mapping[float, nn.Module]


def bank(models: AllNamed) -> Bank:
    """Return the one model where there is no choice: a hash tells it from a bank that has no other."""
    found = {level: each.model for level, each in models.items() if level is not None}
    return found if len(found) > 1 else next(iter(models.values())).model


def read_checkpoints(files: Files, *, arch: str | None, normalizer: str | None, num_classes: int | None) -> AllNamed:
    """Read the checkpoint of all levels, or of each."""
    known = {"arch": arch, "normalizer": normalizer}
    return {
        level: Named(load_checkpoint(file, **known, num_classes=num_classes), str(file))
        for level, file in files.items()
    }


def make_own(
    model: str,
    num_classes: int,
    *,
    normalizer: str | None = None,
    seed: int = 0,
    called: str = "--model",
    download: bool = False,
) -> AllNamed:
    """Load the model of a library that `--model` names, or what errors are to call it, or call the factory."""
    source = f"{called} {model}"
    if library(model):
        try:
            loaded = load_model(model, normalizer=normalizer, download=download)
        except ValueError as error:
            raise ValueError(str(error).replace(model, source, 1)) from error
        return {None: Named(loaded.module, source, loaded)}
    try:
        return {None: Named(build(model, num_classes, seed=seed), source)}
    except ValueError as error:
        raise ValueError(str(error).replace(f"arch = {model!r}", source)) from error


def named_by_run(
    settings: RunSettings,
    num_classes: int,
    *,
    files: Files | None = None,
    called: str = "--model",
    download: bool = False,
) -> AllNamed | None:
    """Return what a run's settings name, its checkpoints perhaps in other files now; None for the demonstration's."""
    files = files or settings.files
    if files:  # which say how many classes they are for; a factory has to be told
        known = {"arch": settings.arch, "normalizer": settings.normalizer}
        classes = num_classes if is_factory(settings.arch) else None
        return read_checkpoints(files, **known, num_classes=classes)
    if settings.model is None:
        return None
    name, normalizer = settings.model, settings.normalizer
    return make_own(name, num_classes, normalizer=normalizer, seed=settings.seed, called=called, download=download)


def base_classifiers(
    start: Start, data: ImageData, *, device: str, progress: bool | Progress = False
) -> tuple[Bank, LoadedModel | None]:
    """Return the base classifier of a run that begins or goes on, and what its library knows of it; see that it fits.

    Raises
    ------
    ValueError
        Where a checkpoint or a model cannot be used, and where it does not fit the data: images, number of classes,
        order of classes.
    OSError
        Where a checkpoint cannot be opened.
    """
    models = named_by_run(start.settings, data.num_classes, download=start.download)
    if models is None:
        return _demonstration(start, data, device, progress), None
    for model, source, loaded in models.values():
        check_fit(model, data, source)
        if loaded is not None:
            check_order(source, loaded.labels, data.class_names, data.name)
    return bank(models), next(iter(models.values())).loaded


def warn_of_scaling(base: Bank, images: ImageSource, labels: Int64[np.ndarray, " n"], *, device: str) -> None:
    """Warn where one of the usual normalisers would restore a base classifier that has none; labels decide that."""
    for model in base.values() if isinstance(base, Mapping) else [base]:
        alone = model.classifier if isinstance(model, DenoisedClassifier) else model
        found = restoring(alone, images, labels, device=device)
        if found is not None:
            warnings.warn(str(found), stacklevel=2)
            return


def _demonstration(start: Start, data: ImageData, device: str, progress: bool | Progress) -> nn.Module:
    """Return the demonstration's network: what an earlier start of the run trained, or a new one."""
    seed = start.settings.seed
    if start.resume and own_file(start.out).exists():
        model = own_classifier(start.out)
        check_fit(model, data, str(own_file(start.out)))
        return model
    model = build("digits_cnn", data.num_classes, seed=seed)
    stage = Stage(
        epochs=60,
        sigma=start.settings.levels.span,  # noise of a random level (Eq. 4)
        lr=3e-3,
        optimizer="adam",
        weight_decay=0.0,
        schedule="cosine",
        batch_size=128,
    )
    images, labels = data.train_images, data.train_labels
    with one_thread_each():
        fit(model, images, labels, stage=stage, engine=Engine(device=device), seed=seed, progress=progress)
    return model


def smoothed(
    base: Bank, settings: RunSettings, num_classes: int, *, seed: int, device: str, batch: int | None = None
) -> SmoothedClassifier:
    """Return the smoothed classifier that a run's settings describe; `batch` is used where they leave that open."""
    return SmoothedClassifier(
        base,
        num_classes,
        sampler=settings.sampler,
        stream=settings.stream,
        precision=settings.precision,
        compile=settings.compiled,
        batch_size=settings.batch or batch,
        seed=seed,
        device=device,
    )


def own_classifier(folder: Path) -> nn.Module:
    """Return the demonstration's classifier that a run trained, from its folder."""
    return load_checkpoint(own_file(folder))


def save_own(folder: Path, settings: RunSettings, base: Bank) -> None:
    """Write the demonstration's classifier into the run's folder, which is to predict without training it again."""
    if settings.trained_here and isinstance(base, nn.Module):
        save_checkpoint(folder / MODEL, base, arch="digits_cnn")
