"""What `srs-predict` needs: a map, its classifier and the images, from a run's folder or from a map alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32
from torch import nn

from regions import RegionMap
from smoothing import SmoothedClassifier
from smoothing.forward import run
from smoothing.identity import own_passes
from smoothing.machine import usable_device
from srs.predict.images import Query, read_images
from srs.predict.online import Arrivals, arrive, open_state
from srs.predict.predictor import Predictor
from srs.predict.run_classifier import bank, fresh_seed, run_classifier
from srs.predict.settings import PredictSettings
from srs.run.base_classifiers import experts
from srs.run.choosing_images import read_indices
from srs.run.folder import REGIONS, read_description
from srs.run.map import check_apart, read_summary, run_map
from training import FolderImages, build, load_checkpoint, load_data


@dataclass(frozen=True, eq=False)
class Opened:
    """A predictor, what it is asked about, the seed to state; of a run also its overlap mode and what it certified."""

    predictor: Predictor
    query: Query
    seed: int
    overlap: str | None = None
    certified: Mapping[str, Any] | None = None

    def arrive(self, settings: PredictSettings) -> Arrivals:
        """Register the images in the file that `--online` names; only for a run, which says what was certified."""
        assert settings.online is not None
        assert self.overlap is not None
        assert self.certified is not None
        G = self.predictor
        with open_state(settings.online, G.table, self.overlap, self.certified) as state:
            return arrive(
                state,
                G.classifier,
                self.query.images,
                G.sigmas.tolist(),
                n=settings.n or 10_000,
                n0=settings.n0,
                alpha=settings.alpha,
            )


def open_run(settings: PredictSettings) -> Opened:
    """Open a finished run: it says which classifier was certified, and of what shape its images are."""
    folder = settings.run
    config, manifest = read_description(folder)
    table = run_map(folder, manifest, read_summary(folder))
    check_apart(folder / REGIONS, table, str(config["overlap"]))
    channels, height, width = manifest["data"]["shape"]

    @cache
    def test_images() -> Float32[np.ndarray, "n c h w"] | FolderImages:
        data_dir = Path(str(config["data_dir"]))
        data = load_data(str(config["dataset"]), data_dir, image_size=config.get("image_size"), train=False)
        return data.test_images

    sources = settings.images
    if settings.indices is not None:
        sources += tuple(f"test:{index}" for index in read_indices(settings.indices, len(test_images())))
    query = read_images(sources, table.centres.shape[1], (channels, height, width), test_images)
    seed, stream = fresh_seed(settings.seed)
    device = str(usable_device(settings.device))
    classifier = run_classifier(
        folder,
        config,
        manifest,
        seed=stream,
        device=device,
        checkpoint=settings.checkpoint,
        expert=settings.expert,
        model=settings.model,
        arch=settings.arch,
    )
    sigmas = manifest["sigmas"]
    predictor = Predictor(classifier, table, sigmas=sigmas, outside=settings.outside, alpha=settings.alpha)
    return Opened(predictor, query, seed, str(config["overlap"]), manifest["classifier"])


def open_map(settings: PredictSettings) -> Opened:
    """Open a map alone: the user says which classifier it belongs to, and nothing can check it."""
    table = _load(settings.run)
    check_apart(settings.run, table, None)
    query = read_images(settings.images, table.centres.shape[1], None)
    files = experts(settings.expert)
    if settings.checkpoint is None and settings.model is None and not files:
        raise ValueError(f"{settings.run} does not say whose regions it holds: name the classifier with --checkpoint")

    def read(file: Path | None) -> nn.Module:
        known = {"arch": settings.arch, "normalizer": settings.normalizer}
        return load_checkpoint(str(file), **known, num_classes=settings.num_classes)

    model: nn.Module | dict[float, nn.Module]
    if files:
        lacking = sorted(set(table.sigma[table.radii > 0].tolist()) - files.keys())
        if lacking:
            raise ValueError(f"{settings.run} has regions of sigma = {lacking[0]:g}: name its --expert as well")
        model = {level: read(file) for level, file in files.items()}
    elif settings.model is not None:
        if settings.num_classes is None:
            raise ValueError(f"--model {settings.model}: give --num-classes, which its factory is called with")
        model = build(settings.model, settings.num_classes)
    else:
        model = read(settings.checkpoint)
    one = next(iter(model.values())) if isinstance(model, dict) else model
    classes = settings.num_classes or _num_classes(one, query, str(settings.checkpoint or settings.expert[0]))
    seed, stream = fresh_seed(settings.seed)
    classifier = SmoothedClassifier(
        bank(model) if isinstance(model, dict) else model,
        classes,
        sampler=settings.sampler,
        precision=settings.precision,
        seed=stream,
        device=str(usable_device(settings.device)),
    )
    predictor = Predictor(classifier, table, outside=settings.outside, alpha=settings.alpha)
    return Opened(predictor, query, seed)


def _load(file: Path) -> RegionMap:
    try:
        return RegionMap.load(file)
    except FileNotFoundError:
        raise FileNotFoundError(f"{file}: no such file; name a region map or the folder of a run") from None


@torch.no_grad()
def _num_classes(model: nn.Module, query: Query, source: str) -> int:
    """Ask the model, and see on the way that it takes these images."""
    try:
        with own_passes(model):
            logits = run(model, torch.from_numpy(query.images[:1]))
    except ValueError as error:
        size = "x".join(map(str, query.images.shape[1:]))
        raise ValueError(f"{source} does not take images of {size}: {error}") from error
    if logits.ndim != 2:
        raise ValueError(f"{source} returns {tuple(logits.shape)} for one image: it is no classifier")
    return int(logits.shape[1])
