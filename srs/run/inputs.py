"""What is certified: a base classifier, the images, and the settings with nothing left open."""

import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, Float64, Int64
from torch import nn

from smoothing import Identity, SmoothedClassifier, make_sampler, sigma_grid
from smoothing.fingerprint import hash_arrays
from smoothing.machine import usable_device
from srs.run.base_classifiers import base_classifiers, check_model, experts, to_train, train, trained_here
from srs.run.choosing_images import lined_up, warn_of_one_class
from srs.run.folder import FORMAT
from srs.run.settings import MOST_LEVELS, CertifySettings
from training import PRESETS, ImageData, check_fit, load_data, training_config

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

_DISTRIBUTIONS = ("srs-certify", "numpy", "scipy", "torch", "scikit-learn", "highspy", "faiss-cpu")


@dataclass(frozen=True, eq=False)
class Inputs:
    """Everything that certification needs.

    Attributes
    ----------
    settings : CertifySettings
        As given, and filled in where that was left to the checkpoint or to defaults.
    data : ImageData
        The data set.
    models : mapping of float to torch.nn.Module
        The base classifier of every level of the grid, often one and the same; maps images in [0, 1] to logits.
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
    models: Mapping[float, nn.Module]
    sigmas: Float64[np.ndarray, " k"]
    indices: Int64[np.ndarray, " n"]
    labels: Int64[np.ndarray, " n"]
    images: Float32[np.ndarray, "n c h w"]
    device: str

    @property
    def classifier(self) -> SmoothedClassifier:
        """The smoothed classifier that the settings describe."""
        modules = list(self.models.values())
        one = all(module is modules[0] for module in modules)
        return SmoothedClassifier(
            modules[0] if one else self.models,
            self.data.num_classes,
            sampler=self.settings.sampler,
            precision=str(self.settings.precision),
            batch_size=self.settings.batch,
            seed=self.settings.seed,
            device=self.device,
        )

    def manifest(self, identity: Identity, check: Sequence[str] = ()) -> dict[str, Any]:
        """Return what a run's rows belong to, the content of `manifest.json`; `check` is the classifier's own."""
        return {
            "format": FORMAT,
            "versions": {"python": platform.python_version(), **{name: version(name) for name in _DISTRIBUTIONS}},
            "seed": self.settings.seed,
            "device": self.device,
            "data": {
                "name": self.data.name,
                "images": len(self.images),
                "shape": list(self.images.shape[1:]),
                "num_classes": self.data.num_classes,
                "sha256": hash_arrays(self.images, self.indices, self.labels),
            },
            "classifier": asdict(identity),
            "router": None,
            "check": list(check),
            "sigmas": self.sigmas.tolist(),
        }


def completed(settings: CertifySettings) -> CertifySettings:
    """Return the settings with what was left open taken from the checkpoint, or from the demonstration without one.

    Raises
    ------
    ValueError
        Where the checkpoint does not say it either, and where it cannot be read.
    OSError
        Where the checkpoint cannot be opened.
    """
    preset = _preset(settings.preset)
    if trained_here(settings):
        for name in ("arch", "normalizer", "preset"):
            if getattr(settings, name) is not None:
                raise ValueError(f"--{name} {getattr(settings, name)}: describes a --checkpoint; name one")
        if settings.dataset not in (None, "digits"):
            raise ValueError(f"--dataset {settings.dataset}: needs a base classifier; name one with --checkpoint")
        return _one_level(_filled(settings, DEMONSTRATION))
    files = [settings.checkpoint] if settings.checkpoint else list(experts(settings.expert).values())
    if settings.model is not None:
        check_model(settings)
    known = {"out": files[0].parent / "certified"} if files else {}
    known |= preset | (_from_training(training_config(files[0])) if files else {})
    grid = ("sigma_min", "sigma_max", "sigma_step")
    if settings.expert:  # whose levels are the grid
        known = {name: value for name, value in known.items() if name not in grid}
    filled = _filled(settings, {"data_dir": Path("data"), "precision": "float32"} | known)
    for name in ("dataset", *(() if settings.expert else grid), "out"):
        if getattr(filled, name) is None:
            source = str(files[0]) if files else f"--model {settings.model}"
            raise ValueError(f"{source} does not say it: give --{name.replace('_', '-')}")
    return _one_level(filled)


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
    device = str(usable_device(settings.device))
    data_dir = Path(str(settings.data_dir))
    data = load_data(str(settings.dataset), data_dir, image_size=settings.image_size, train=trained_here(settings))
    indices = lined_up(len(data.test_labels), settings.image_order, settings.indices)[:: settings.skip][: settings.max]
    remedy = "choose across classes by --image-order shuffled, --skip or --indices"
    warn_of_one_class(data.test_labels[indices], data.test_labels, remedy)
    images = data.test_images[indices]
    make_sampler(settings.sampler).check(torch.from_numpy(images))
    models = base_classifiers(settings, sigmas, data)
    for model, source in {id(model): (model, source) for model, source in models.values()}.values():
        check_fit(model, data, source)
    if to_train(settings):
        train(models[float(sigmas[0])][0], data, settings, device, progress)
    banks = {level: model for level, (model, _) in models.items()}
    return Inputs(settings, data, banks, sigmas, indices, data.test_labels[indices], images, device)


def _preset(name: str | None) -> dict[str, Any]:
    """Return what a preset of srs-train says about data set and noise levels."""
    if name is None:
        return {}
    if name not in PRESETS:
        raise ValueError(f"--preset {name}: choose {', '.join(PRESETS)}")
    known = _from_training(PRESETS[name][1].to_dict())
    return {key: known[key] for key in ("dataset", "sigma_min", "sigma_max", "sigma_step")}


def _one_level(settings: CertifySettings) -> CertifySettings:
    """Settle the overlap mode: on a grid of one level, regions need not be kept apart."""
    if settings.overlap is not None:
        return settings
    return replace(settings, overlap="sigma" if len(_grid(settings)) == 1 else "paper")


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
    if settings.expert:
        return np.array(list(experts(settings.expert)))
    low, high, step = (float(value or 0) for value in (settings.sigma_min, settings.sigma_max, settings.sigma_step))
    if step > 0 and (high - low) / step > MOST_LEVELS:
        raise ValueError(f"--sigma-step {step}: more than {MOST_LEVELS:,} levels; take larger steps")
    return sigma_grid(low, high, step)
