"""Base classifiers: from a checkpoint, from one checkpoint a level, from the user's own code, or trained here."""

from collections.abc import Mapping
from pathlib import Path

from torch import nn

from smoothing import SmoothedClassifier
from smoothing.machine import one_thread_each
from smoothing.progress import Progress
from srs.run.folder import MODEL, own_file
from srs.run.run_settings import RunSettings, Start
from srs.run.sources import Files
from training import Engine, ImageData, Stage, build, check_fit, fit, load_checkpoint, save_checkpoint
from training.models import is_factory

#: The base classifier of every level, or under None that of all levels, and what errors call each.
Named = Mapping[float | None, tuple[nn.Module, str]]

#: One base classifier for all levels, or one for each: what `SmoothedClassifier` takes.
Bank = nn.Module | Mapping[float, nn.Module]


def bank(models: Named) -> Bank:
    """Return the one model where there is no choice: a hash tells it from a bank that has no other."""
    found = {level: model for level, (model, _) in models.items() if level is not None}
    return found if len(found) > 1 else next(iter(models.values()))[0]


def read_checkpoints(files: Files, *, arch: str | None, normalizer: str | None, num_classes: int | None) -> Named:
    """Read the checkpoint of all levels, or of each."""
    known = {"arch": arch, "normalizer": normalizer}
    return {
        level: (load_checkpoint(file, **known, num_classes=num_classes), str(file)) for level, file in files.items()
    }


def make_own(model: str, num_classes: int, *, seed: int = 0, called: str = "--model") -> Named:
    """Call the factory that `--model` names, or what errors are to call it."""
    source = f"{called} {model}"
    try:
        return {None: (build(model, num_classes, seed=seed), source)}
    except ValueError as error:
        raise ValueError(str(error).replace(f"arch = {model!r}", source)) from error


def named_by_run(
    settings: RunSettings, num_classes: int, *, files: Files | None = None, called: str = "--model"
) -> Named | None:
    """Return what a run's settings name, its checkpoints perhaps in other files now; None for the demonstration's."""
    files = files or settings.files
    if files:  # which say how many classes they are for; a factory has to be told
        known = {"arch": settings.arch, "normalizer": settings.normalizer}
        classes = num_classes if is_factory(settings.arch) else None
        return read_checkpoints(files, **known, num_classes=classes)
    if settings.model is None:
        return None
    return make_own(settings.model, num_classes, seed=settings.seed, called=called)


def base_classifiers(start: Start, data: ImageData, *, device: str, progress: bool | Progress = False) -> Bank:
    """Return the base classifier of a run that begins or goes on, and see that it fits the data.

    Raises
    ------
    ValueError
        Where a checkpoint or a factory cannot be used, and where it does not fit the data.
    OSError
        Where a checkpoint cannot be opened.
    """
    models = named_by_run(start.settings, data.num_classes)
    if models is None:
        return _demonstration(start, data, device, progress)
    for model, source in models.values():
        check_fit(model, data, source)
    return bank(models)


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
