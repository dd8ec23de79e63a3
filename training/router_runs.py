"""Training a router in a folder: radii of training images, the network, and the comparison on held-out ones."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeGuard, cast

import numpy as np
import torch
from jaxtyping import Float64, Int64
from torch import nn

from smoothing import SmoothedClassifier, sigma_grid
from smoothing.forward import run as run_model
from smoothing.identity import own_passes
from smoothing.progress import Progress
from training.checkpoints import ROUTER, check_savable, load_checkpoint, training_config
from training.data import ImageData, compact, subset
from training.evaluate import check_fit
from training.models import is_factory, normalized
from training.router_checkpoints import RouterFacts
from training.router_targets import RouterSampling, RouterValidation, expected_radii, validate_router
from training.routers import router_network
from training.settings import TrainSettings, check_router_levels
from training.staged_run import StagedRun


class RouterRun(StagedRun):
    """Targets are computed, a router learns them, and is compared with constant levels on held-out images."""

    def __init__(self, settings: TrainSettings, data: ImageData, progress: bool | Progress) -> None:
        base, config = _base(settings, data)
        levels = _levels(settings, config)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.seed)
            net = router_network(settings.model, len(levels), kind=settings.router_kind)
        super().__init__(settings, progress, net)
        self.sigmas = np.array(levels)
        self.rows, self.held_out = _split(settings, data, config)
        self.unseen = _unseen(settings, len(self.held_out), len(data.train_labels), config)
        all_images = compact(data.train_images)
        self.images, self.held_out_images = (subset(all_images, rows) for rows in (self.rows, self.held_out))
        self.labels, self.held_out_labels = (data.train_labels[rows] for rows in (self.rows, self.held_out))
        self.classifier = SmoothedClassifier(
            base,
            data.num_classes,
            precision=settings.precision,
            channels_last=settings.channels_last,
            compile=settings.compile,
            seed=settings.seed,
            device=self.device,
        )
        check_savable(self.net, f"--model {settings.model}")
        self.model = normalized(self.net, settings.normalizer)
        _check_levels(self.model, data, len(levels), f"--model {settings.model}")
        self.facts = RouterFacts(
            levels=levels,
            trained_sigma=cast(float, settings.router_sigma),
            kind=settings.router_kind,
            loss=settings.router_loss,
            base=self.classifier.identity.weights,
            image_shape=tuple(data.test_images.shape[1:]),
            seed=settings.seed,
        )
        self.targets: Float64[np.ndarray, "n K"] | None = None
        self.validation: dict[str, Any] | None = None

    def entries(self) -> dict[str, Any]:
        """Return what the router is for, its targets, and what held-out images said."""
        assert self.targets is not None
        return {
            "normalizer": self.settings.normalizer,
            ROUTER: {**self.facts.entry(None), "validation": self.validation},
            "targets": torch.from_numpy(self.targets),
        }

    def take_up(self, saved: Mapping[str, Any]) -> None:
        """Take up the targets, of the same base classifier, and what held-out images said."""
        about, targets = saved.get(ROUTER), saved.get("targets")
        if not isinstance(about, Mapping) or {**about, "validation": None} != self.facts.entry(None):
            raise ValueError(
                f"--checkpoint {self.settings.checkpoint}: the run in {self.settings.out} is for another base "
                "classifier; give that one, or begin in another folder"
            )
        if not _are_radii(targets, (len(self.rows), len(self.sigmas))):
            raise self.unknown_progress()
        self.targets, self.validation = targets.numpy(), about.get("validation")

    def train(self) -> None:
        """Compute the targets, train, and compare with constant levels, each from where the folder stands."""
        if self.targets is None:
            self.targets = expected_radii(
                self.classifier,
                self.images,
                self.labels,
                sigmas=self.sigmas,
                n0=self.settings.n0,
                n=self.settings.n_final,
                alpha=self.settings.alpha,
                indices=self.rows,
                partial=self._partial("radii", self.facts.base),
                progress=self.progress,
            )
        best = self.targets.max(axis=1).mean()
        if best == 0:
            raise ValueError(
                f"--checkpoint {self.settings.checkpoint}: no training image has a radius at any of the levels "
                f"{' '.join(map(str, self.facts.levels))}; name levels that the base classifier was trained for"
            )

        # so the loss is a part of what there is to be had
        targets = (self.targets / best).astype(np.float32)
        self.fit(self.model, self.images, targets, stage=self.settings.router_stage)
        if self.validation is None:
            self.validation = self.facts.entry(self._validate())["validation"]
            if self.logs is not None:
                self.save()

    def _validate(self) -> RouterValidation:
        settings = self.settings
        sampling = RouterSampling(n0=settings.n0, n=settings.n_final, n_router=settings.n_router, alpha=settings.alpha)
        return validate_router(
            self.classifier,
            self.model,
            self.held_out_images,
            labels=self.held_out_labels,
            sigmas=self.sigmas,
            router_sigma=self.facts.trained_sigma,
            sampling=sampling,
            unseen=self.unseen,
            indices=self.held_out,
            progress=self.progress,
        )

    def _partial(self, name: str, digest: str) -> Path:
        return self.settings.out / f"{name}-{digest[:12]}.partial"


def _base(settings: TrainSettings, data: ImageData) -> tuple[nn.Module, dict[str, Any]]:
    """Return the base classifier, and what its checkpoint says of its training."""
    file = settings.checkpoint
    if file is None:
        raise ValueError("--method router learns for a base classifier: name its checkpoint with --checkpoint")
    config = training_config(file)
    for name in ("model", "normalizer"):
        theirs, ours = config.get(name), getattr(settings, name)
        if theirs is not None and theirs != ours and not is_factory(theirs):
            raise ValueError(f"--{name} {ours}: the base classifier in {file} has {theirs}; give --{name} {theirs}")
    classes = data.num_classes if is_factory(settings.model) else None
    base = load_checkpoint(file, arch=settings.model, normalizer=settings.normalizer, num_classes=classes)
    check_fit(base, data, f"--checkpoint {file}")
    return base, config


@torch.no_grad()
def _check_levels(router: nn.Module, data: ImageData, levels: int, name: str) -> None:
    """Raise where a network of the user's does not return what it is asked for."""
    router.eval()
    try:
        with own_passes(router):
            shape = tuple(run_model(router, torch.from_numpy(data.test_images[:1])).shape)
    except ValueError as error:
        raise ValueError(f"{name} is no router for {data.name}: {error}") from error
    if shape != (1, levels):
        raise ValueError(f"{name} is no router for {data.name}: {shape} for one image and {levels} levels")


def _levels(settings: TrainSettings, config: Mapping[str, Any]) -> tuple[float, ...]:
    """Return the levels that are given, or those that the base classifier was trained for."""
    if settings.sigmas is not None:
        return settings.sigmas
    if config.get("sigma") is not None:
        return check_router_levels(f"the base classifier in {settings.checkpoint} was trained at", (config["sigma"],))
    if config.get("sigmas") is not None:
        return check_router_levels("levels of the base classifier", config["sigmas"])
    names = ("sigma_min", "sigma_max", "sigma_step")
    if any(config.get(name) is None for name in names):
        raise ValueError(f"{settings.checkpoint} does not say which levels it was trained for: give --sigmas")
    return check_router_levels("levels of the base classifier", sigma_grid(*(config[name] for name in names)).tolist())


def _split(
    settings: TrainSettings, data: ImageData, config: Mapping[str, Any]
) -> tuple[Int64[np.ndarray, " n"], Int64[np.ndarray, " held_out"]]:
    """Return which training images the router learns from, and which are held out; both increasing.

    Held out are first those that the base classifier was not trained on, where its checkpoint says that there are any:
    it took the first of the order that its seed makes.
    """
    count = len(data.train_labels)
    wanted = settings.train_images
    held_out = settings.validation_images
    if held_out is None:
        held_out = count // 5 if wanted is None else max(2, wanted // 4)
    wanted = count - held_out if wanted is None else wanted
    if wanted < 1 or wanted + held_out > count:
        raise ValueError(
            f"--train-images {wanted} and --validation-images {held_out}: {data.name} has {count} for both"
        )
    order = np.random.default_rng(config.get("seed", settings.seed)).permutation(count)[::-1]
    return np.sort(order[held_out : held_out + wanted]), np.sort(order[:held_out])


def _unseen(settings: TrainSettings, held_out: int, count: int, config: Mapping[str, Any]) -> int:
    """Return how many of the held-out images the base classifier was not trained on, as far as its checkpoint says."""
    seen = config.get("train_images")
    if seen is None or config.get("dataset") != settings.dataset:
        return 0
    return max(0, min(held_out, count - int(seen)))


def _are_radii(targets: Any, shape: tuple[int, int]) -> TypeGuard[torch.Tensor]:
    plain = isinstance(targets, torch.Tensor) and targets.dtype == torch.float64 and targets.layout == torch.strided
    return plain and targets.shape == shape and bool(((targets >= 0) & (targets < math.inf)).all())
