"""What `srs-predict` needs: a map, its classifier and the images, from a run's folder or from a map alone."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal, TypeAlias

import torch
from torch import nn

from regions import RegionMap
from smoothing import SmoothedClassifier
from smoothing.forward import run
from smoothing.identity import own_passes
from smoothing.machine import usable_device
from srs.limits import named_level
from srs.predict.images import Query, read_images
from srs.predict.loading import open_classifier, read_run
from srs.predict.online import Arrivals
from srs.predict.predictor import Answers, Predictor
from srs.predict.run_classifier import FLAGS, fresh_seed
from srs.predict.settings import PredictSettings
from srs.run.base_classifiers import AllNamed, bank, make_own, read_checkpoints
from srs.run.choosing_images import read_indices
from srs.run.denoiser import read_denoiser
from srs.run.map import check_apart
from srs.run.sources import check_data, files_of, library
from training import Images, load_data

Ask: TypeAlias = Callable[..., Answers]


@dataclass(frozen=True, eq=False)
class Opened:
    """A classifier, what it is asked about, and the seed to state.

    Attributes
    ----------
    predict, certify : callable
        Of images, n and n0.
    query : Query
    seed : int
    outside : float, "router" or None
        The noise level outside every region, where there is one, or that a router names it.
    map_hash : str
        Content hash of the regions: what is said of an image holds for this map.
    """

    predict: Ask
    certify: Ask
    query: Query
    seed: int
    outside: float | Literal["router"] | None
    map_hash: str


@dataclass(frozen=True, eq=False)
class OpenedRun(Opened):
    """Of a run also how to register images in a file."""

    register: Callable[..., Arrivals]


def open_run(settings: PredictSettings) -> OpenedRun:
    """Open a finished run: it says which classifier was certified, and of what shape its images are."""
    run = read_run(settings.run)
    ours = run.described.settings
    if settings.dataset is not None:
        check_data(settings.run, settings.dataset, ours.dataset)

    @cache
    def test_images() -> Images:
        check_data(settings.run, settings.dataset, ours.dataset)
        return load_data(ours.dataset, ours.data_dir, image_size=ours.image_size, train=False).test_images

    sources = settings.images
    if settings.indices is not None:
        sources += tuple(f"test:{index}" for index in read_indices(settings.indices, len(test_images())))
    query = read_images(sources, math.prod(run.shape), run.shape, test_images)
    G = open_classifier(
        run,
        model=settings.model,
        files=files_of(settings.checkpoint, settings.expert),
        router=settings.router,
        denoiser=settings.denoiser,
        arch=settings.arch,
        device=settings.device,
        outside=settings.outside,
        alpha=settings.alpha,
        seed=settings.seed,
        words=FLAGS,
    )
    return OpenedRun(G.predict, G.certify, query, G.seed, run.outside, run.regions.content_hash, G.register)


def open_map(settings: PredictSettings) -> Opened:
    """Open a map alone: the user says which classifier it belongs to, and nothing can check it."""
    table = _load(settings.run)
    check_apart(settings.run, table, None)
    query = read_images(settings.images, table.centres.shape[1], None)
    models = _named(settings, table)
    first = next(iter(models.values()))
    classes = settings.num_classes or _num_classes(first.model, first.source, query)
    seed, stream = fresh_seed(settings.seed)
    base = bank(models)
    if settings.denoiser is not None:
        sigmas = _levels(table, settings.outside)
        base = read_denoiser(settings.denoiser, sigmas, query.images.shape[1:]).before(base, sigmas)
    classifier = SmoothedClassifier(
        base,
        classes,
        sampler=settings.sampler,
        precision=settings.precision,
        seed=stream,
        device=str(usable_device(settings.device)),
    )
    G = Predictor(classifier, table, outside=settings.outside, alpha=settings.alpha)
    return Opened(G, G.certify, query, seed, named_level(settings.outside), table.content_hash)


def _named(settings: PredictSettings, table: RegionMap) -> AllNamed:
    """Return the base classifier that the user names for a map."""
    if settings.model is not None:
        if settings.num_classes is None and not library(settings.model):
            raise ValueError(f"--model {settings.model}: give --num-classes, which its factory is called with")
        return make_own(settings.model, settings.num_classes or 0, normalizer=settings.normalizer)
    files = files_of(settings.checkpoint, settings.expert)
    if not files:
        raise ValueError(f"{settings.run} does not say whose regions it holds: name the classifier with --checkpoint")
    lacking = sorted(set(table.sigma[table.radii > 0].tolist()) - files.keys())
    if lacking and None not in files:
        raise ValueError(f"{settings.run} has regions of sigma = {lacking[0]:g}: name its --expert as well")
    known = {"arch": settings.arch, "normalizer": settings.normalizer}
    return read_checkpoints(files, **known, num_classes=settings.num_classes)


def _levels(table: RegionMap, outside: str) -> list[float]:
    """Return the levels of a map's regions, and that which is named outside of them."""
    levels = set(table.sigma[table.radii > 0].tolist())
    around = named_level(outside)
    return sorted(levels if around is None else levels | {around})


def _load(file: Path) -> RegionMap:
    try:
        return RegionMap.load(file)
    except FileNotFoundError:
        raise FileNotFoundError(f"{file}: no such file; name a region map or the folder of a run") from None


@torch.no_grad()
def _num_classes(model: nn.Module, source: str, query: Query) -> int:
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
