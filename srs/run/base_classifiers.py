"""Base classifiers: from a checkpoint, from one checkpoint a level, from the user's own code, or trained here."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float64
from torch import nn

from smoothing.machine import one_thread_each
from srs.run.folder import MODEL
from srs.run.settings import CertifySettings
from training import Engine, ImageData, Stage, build, fit, load_checkpoint, save_checkpoint
from training.models import is_factory


def trained_here(settings: CertifySettings) -> bool:
    """Whether the base classifier is the demonstration's, which no file but the run's own holds."""
    return settings.checkpoint is None and settings.model is None and not settings.expert


def save_own(folder: Path, settings: CertifySettings, models: Mapping[float, nn.Module]) -> None:
    """Write the demonstration's classifier into the run's folder, which is to predict without training it again."""
    if trained_here(settings):
        save_checkpoint(folder / MODEL, next(iter(models.values())), arch="digits_cnn")


def to_train(settings: CertifySettings) -> bool:
    """Whether the classifier is still to be trained: no earlier start of the run did it."""
    return trained_here(settings) and not (settings.resume and _own_model(settings).exists())


def _own_model(settings: CertifySettings) -> Path:
    return Path(str(settings.out)) / MODEL


def base_classifiers(
    settings: CertifySettings, sigmas: Float64[np.ndarray, " k"], data: ImageData
) -> dict[float, tuple[nn.Module, str]]:
    """Return the base classifier of every level, and what errors call it."""
    if settings.expert:
        files = experts(settings.expert)
        return {level: (_checkpoint(settings, files[level], data), str(files[level])) for level in sigmas.tolist()}
    if settings.model is not None:
        source = f"--model {settings.model}"
        try:
            model = build(settings.model, data.num_classes, seed=settings.seed)
        except ValueError as error:
            raise ValueError(str(error).replace(f"arch = {settings.model!r}", source)) from error
    elif settings.checkpoint is not None:
        model, source = _checkpoint(settings, settings.checkpoint, data), str(settings.checkpoint)
    elif to_train(settings):
        model, source = build("digits_cnn", data.num_classes, seed=settings.seed), "digits_cnn"
    else:
        model, source = load_checkpoint(_own_model(settings)), str(_own_model(settings))
    return dict.fromkeys(sigmas.tolist(), (model, source))


def _checkpoint(settings: CertifySettings, file: Path, data: ImageData) -> nn.Module:
    """Read a checkpoint; the data set says how many classes a factory is for, where the file does not."""
    classes = data.num_classes if is_factory(settings.arch or "") else None
    return load_checkpoint(file, arch=settings.arch, normalizer=settings.normalizer, num_classes=classes)


def check_model(settings: CertifySettings) -> None:
    """Raise where `--model` names no factory, or comes with flags that would have no effect."""
    if not is_factory(str(settings.model)):
        raise ValueError(f"--model {settings.model}: expected package.module:factory; for weights use --checkpoint")
    for name in ("arch", "normalizer"):
        if getattr(settings, name) is not None:
            raise ValueError(f"--{name}: describes a --checkpoint; what --model returns is taken as it is")


def experts(pairs: Sequence[str]) -> dict[float, Path]:
    """Return the file of every noise level, levels increasing."""
    files: dict[float, Path] = {}
    for pair in pairs:
        level, equals, file = pair.partition("=")
        try:
            sigma = float(level)
        except ValueError:
            sigma = 0.0
        if not equals or not file or not 0 < sigma < math.inf:
            raise ValueError(f"--expert {pair}: expected SIGMA=FILE with SIGMA > 0, such as 0.25=model.pt")
        if sigma in files:
            raise ValueError(f"--expert {pair}: sigma {sigma:g} has {files[sigma]} already; give each level once")
        files[sigma] = Path(file)
    return dict(sorted(files.items()))


def train(model: nn.Module, data: ImageData, settings: CertifySettings, device: str, progress: bool) -> None:
    """Train the demonstration's network under noise of a random level (Eq. 4)."""
    low, high = (float(value or 0) for value in (settings.sigma_min, settings.sigma_max))
    stage = Stage(
        epochs=60,
        sigma=(low, high),
        lr=3e-3,
        optimizer="adam",
        weight_decay=0.0,
        schedule="cosine",
        batch_size=128,
    )
    with one_thread_each():
        fit(
            model,
            data.train_images,
            data.train_labels,
            stage,
            Engine(device=device),
            seed=settings.seed,
            progress=progress,
        )
