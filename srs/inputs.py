"""What is certified: a base classifier, the images, and the settings with nothing left open."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, Float64, Int64
from torch import nn

from smoothing import sigma_grid
from smoothing.devices import usable_device
from smoothing.threads import one_thread_each
from srs.settings import MOST_LEVELS, CertifySettings
from training import Engine, ImageData, Stage, build, fit, load_checkpoint, load_data, training_config

#: What is certified where no checkpoint says otherwise.
DEMONSTRATION: Mapping[str, Any] = {
    "dataset": "digits",
    "data_dir": Path("data"),
    "sigma_min": 0.1,
    "sigma_max": 0.6,
    "sigma_step": 0.1,
    "precision": "float32",
    "out": Path("runs/digits"),
}


@dataclass(frozen=True, eq=False)
class Inputs:
    """Everything that certification needs.

    Attributes
    ----------
    settings : CertifySettings
        As given, and filled in where that was left to the checkpoint or to defaults.
    data : ImageData
        The data set.
    model : torch.nn.Module
        Trained; maps images in [0, 1] to logits.
    sigmas : array of shape (k,)
        The grid.
    indices, labels : int arrays of shape (n,)
        The chosen test images' indices, and their true classes.
    images : float32 array of shape (n, C, H, W)
        Those images.
    device : str
        Where to compute.
    """

    settings: CertifySettings
    data: ImageData
    model: nn.Module
    sigmas: Float64[np.ndarray, " k"]
    indices: Int64[np.ndarray, " n"]
    labels: Int64[np.ndarray, " n"]
    images: Float32[np.ndarray, "n c h w"]
    device: str


def completed(settings: CertifySettings) -> CertifySettings:
    """Return the settings with what was left open taken from the checkpoint, or from the demonstration without one.

    Raises
    ------
    ValueError
        Where the checkpoint does not say it either, and where it cannot be read.
    OSError
        Where the checkpoint cannot be opened.
    """
    if settings.checkpoint is None:
        if settings.dataset not in (None, "digits"):
            raise ValueError(f"--dataset {settings.dataset}: needs a base classifier; name one with --checkpoint")
        for name in ("arch", "normalizer"):
            if getattr(settings, name) is not None:
                raise ValueError(f"--{name} {getattr(settings, name)}: describes a --checkpoint; name one")
        return _filled(settings, DEMONSTRATION)
    known = _from_training(training_config(settings.checkpoint))
    known["out"] = settings.checkpoint.parent / "certified"
    filled = _filled(settings, {"data_dir": Path("data"), "precision": "float32"} | known)
    for name in ("dataset", "sigma_min", "sigma_max", "sigma_step"):
        if getattr(filled, name) is None:
            raise ValueError(f"{settings.checkpoint} does not say it: give --{name.replace('_', '-')}")
    return filled


def load(settings: CertifySettings, *, progress: bool = False) -> Inputs:
    """Read data and classifier; without a checkpoint, train one on the digits, which takes seconds.

    Parameters
    ----------
    settings : CertifySettings
        As `completed` returns them.
    progress : bool, default=False
        Show a bar on stderr.

    Raises
    ------
    ValueError
        Where a setting cannot be honoured, or files cannot be used.
    OSError
        Where the checkpoint cannot be opened.
    """
    sigmas = _grid(settings)
    device = settings.device if settings.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    usable_device(device)
    data = load_data(str(settings.dataset), Path(str(settings.data_dir)), image_size=settings.image_size)
    if settings.checkpoint is None:
        model = build("digits_cnn", data.num_classes, seed=settings.seed)
    else:
        model = load_checkpoint(settings.checkpoint, arch=settings.arch, normalizer=settings.normalizer)
    indices = np.arange(0, len(data.test_images), settings.skip)[: settings.max]
    images = data.test_images[indices]
    _check_fit(settings, model, images, data)
    if settings.checkpoint is None:
        _train(model, data, settings, device, progress)
    return Inputs(settings, data, model, sigmas, indices, data.test_labels[indices], images, device)


def _filled(settings: CertifySettings, known: Mapping[str, Any]) -> CertifySettings:
    return replace(settings, **{name: value for name, value in known.items() if getattr(settings, name) is None})


def _from_training(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a training run's configuration says about certifying its model."""
    known = {name: config.get(name) for name in ("dataset", "image_size", "precision")}
    if "data_dir" in config:
        known["data_dir"] = Path(config["data_dir"])
    if config.get("sigma") is not None:
        known |= dict.fromkeys(("sigma_min", "sigma_max", "sigma_step"), config["sigma"])
    else:
        known |= {name: config.get(name) for name in ("sigma_min", "sigma_max", "sigma_step")}
    return {name: value for name, value in known.items() if value is not None}


def _grid(settings: CertifySettings) -> Float64[np.ndarray, " k"]:
    low, high, step = (float(value or 0) for value in (settings.sigma_min, settings.sigma_max, settings.sigma_step))
    if step > 0 and (high - low) / step > MOST_LEVELS:
        raise ValueError(f"--sigma-step {step}: more than {MOST_LEVELS:,} levels; take larger steps")
    return sigma_grid(low, high, step)


@torch.inference_mode()
def _check_fit(
    settings: CertifySettings, model: nn.Module, images: Float32[np.ndarray, "n c h w"], data: ImageData
) -> None:
    """Raise where the model does not take these images, or knows another number of classes."""
    try:
        shape = tuple(model(torch.from_numpy(images[:1])).shape)
    except RuntimeError as error:
        size = "x".join(map(str, images.shape[1:]))
        raise ValueError(f"{settings.checkpoint} does not take {data.name}'s images of {size}: {error}") from error
    if shape != (1, data.num_classes):
        raise ValueError(
            f"{settings.checkpoint} returns {shape} for one image of {data.name}, which has {data.num_classes} "
            "classes; name its own --dataset"
        )


def _train(model: nn.Module, data: ImageData, settings: CertifySettings, device: str, progress: bool) -> None:
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
