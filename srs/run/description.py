"""What a run's `manifest.json` may say. A folder may come from somebody else: every value is checked before its use."""

import re
from collections.abc import Mapping
from itertools import pairwise
from math import prod
from typing import Any

from smoothing.limits import MOST_CLASSES, MOST_LEVELS
from srs.run.denoiser import check_denoiser
from srs.run.router import check_router
from srs.run.run_settings import RunSettings
from srs.run.settings import MOST, MOST_BATCH

#: Numbers in an image: arrays are made of that size.
_MOST_NUMBERS = 10**8

_HASH = re.compile("[0-9a-f]{64}")

BYTES = "uint8"
"""What the manifest says of `centres` where those of the map are bytes, which stand for p / 255."""


def check_manifest(manifest: Mapping[str, Any], settings: RunSettings) -> None:
    """Raise `ValueError` unless the manifest has all parts, each of its type and range, and is of these settings.

    Of `classifier`, names that are not known here are left to the comparison with the classifier itself.
    """
    data, classifier = (_part(manifest, name, dict) for name in ("data", "classifier"))
    sigmas = _part(manifest, "sigmas", list)
    _part(manifest, "device", str)
    _part(manifest, "versions", dict)
    _part(data, "name", str)
    _whole(data, "images", 1, MOST)
    classes = _whole(data, "num_classes", 2, MOST_CLASSES)
    shape = _part(data, "shape", list)
    if len(shape) != 3 or any(not _is_whole(side, 1, MOST) for side in shape) or prod(shape) > _MOST_NUMBERS:
        raise ValueError(f"shape = {_short(shape)} is none of an image")
    if "centres" in data and (data["centres"] != BYTES or settings.router or settings.mode.outside is not None):
        raise ValueError(f"centres = {_short(data['centres'])} is no such kind")
    for part, name in ((data, "sha256"), (classifier, "weights")):
        if not _HASH.fullmatch(_part(part, name, str)):
            raise ValueError(f"{name} = {_short(part[name])} is no hash")
    said = {"stream": "sfc64", **classifier}  # the only one there was while records did not name it
    for name in ("precision", "sampler", "stream"):
        if _part(said, name, str) != getattr(settings, name):
            raise ValueError(f"{name} = {_short(said[name])}, but the settings say {getattr(settings, name)}")
    if (found := classifier.get("compiled", False)) != settings.compiled:
        raise ValueError(f"compiled = {_short(found)}, but the settings say --compile {settings.compile}")
    if "model" in manifest:
        _check_model(_part(manifest, "model", dict), settings, classes)
    if "batch" in manifest:
        _whole(manifest, "batch", 1, MOST_BATCH)
    if _whole(classifier, "num_classes", 2, MOST_CLASSES) != classes:
        raise ValueError(f"num_classes = {classifier['num_classes']}, but the data have {classes}")
    for seed in (_whole(manifest, "seed", 0, 2**63 - 1), _whole(classifier, "seed", 0, 2**63 - 1)):
        if seed != settings.seed:
            raise ValueError(f"seed = {seed}, but the settings say {settings.seed}")
    if not 1 <= len(sigmas) <= MOST_LEVELS or not all(_is_level(sigma) for sigma in sigmas):
        raise ValueError(f"sigmas = {_short(sigmas)} are no noise levels")
    if not all(low < high for low, high in pairwise(sigmas)):
        raise ValueError(f"sigmas = {_short(sigmas)} do not increase")
    check_denoiser(manifest.get("denoiser"), named=settings.denoiser is not None)
    check_router(manifest.get("router"), sigmas, named=settings.router is not None)


def _check_model(about: Mapping[str, Any], settings: RunSettings, classes: int) -> None:
    """Check what is said of a model of another library: the one that the settings name, and a name for each class."""
    if about.get("name") != settings.model:
        raise ValueError(f"model = {_short(about.get('name'))}, but the settings say {settings.model}")
    labels = about.get("labels")
    if labels is not None and not (
        isinstance(labels, list) and len(labels) == classes and all(isinstance(label, str) for label in labels)
    ):
        raise ValueError(f"labels = {_short(labels)} do not name {classes} classes")


def _part(content: Mapping[str, Any], name: str, kind: type) -> Any:
    if not isinstance(content.get(name), kind):
        raise ValueError(f"{name} = {_short(content.get(name))} is no such part of a manifest")
    return content[name]


def _whole(content: Mapping[str, Any], name: str, least: int, most: int) -> int:
    value: Any = content.get(name)
    if not _is_whole(value, least, most):
        raise ValueError(f"{name} = {_short(value)} must be a whole number from {least} to {most}")
    return int(value)


def _is_whole(value: Any, least: int, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def _is_level(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value <= MOST


def _short(value: Any) -> str:
    return repr(value)[:60]
