"""Checkpoints of routers: which levels, under which noise, for which base classifier, and what held-out images say."""

import itertools
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
import torch
from jaxtyping import Float64
from torch import nn

from training.checkpoint_files import read_file
from training.checkpoints import ROUTER, holds_router, named_arch, take_state
from training.models import NORMALIZERS, normalized
from training.router_targets import RouterValidation
from training.routers import KINDS, router_network
from training.settings import ROUTER_LOSSES

#: More levels than this are no choice of levels, but a damaged file.
_MOST_LEVELS = 10_000


@dataclass(frozen=True, kw_only=True, eq=False)
class RouterCheckpoint:
    """A router and what it is for: `RoutedClassifier(base, r.router, r.sigmas, router_sigma=r.router_sigma)`.

    Where held-out training images did not show it to be better than the best constant level, that level is the answer:
    `router` and `router_sigma` are None, and `sigmas` holds one level.

    Attributes
    ----------
    router : torch.nn.Module or None
        Maps images of shape (b, C, H, W) to K logits; in evaluation mode, on the CPU, any normaliser included.
    sigmas : array of shape (K,)
        The levels, increasing; one where there is no router.
    router_sigma : float or None
        Noise level of the router's own votes.
    levels : tuple of float
        The levels that it was trained for, whatever the answer is.
    trained_sigma : float
        The noise that it was trained under.
    kind, loss : str
        As in `srs-train --router-kind` and `--router-loss`.
    base : str
        SHA-256 of the base classifier that it was trained for: `identity.weights` of a `SmoothedClassifier`.
    image_shape : tuple of int
        (C, H, W).
    seed : int
    validation : RouterValidation
        What held-out training images said. From the file, so it proves nothing about a file from somebody else; no
        certificate depends on it.
    """

    router: nn.Module | None
    sigmas: Float64[np.ndarray, " K"]
    router_sigma: float | None
    levels: tuple[float, ...]
    trained_sigma: float
    kind: str
    loss: str
    base: str
    image_shape: tuple[int, ...]
    seed: int
    validation: RouterValidation

    def check(self, *, base: str, image_shape: Sequence[int], source: str) -> None:
        """Raise where the router is for another base classifier, or for other images.

        Parameters
        ----------
        base : str
            `identity.weights` of the base classifier that it is to be used with.
        image_shape : sequence of int
            (C, H, W) of the images.
        source : str
            What the message calls the router, such as its file.

        Raises
        ------
        ValueError
            One line.
        """
        if tuple(image_shape) != self.image_shape:
            ours, theirs = ("x".join(map(str, shape)) for shape in (self.image_shape, image_shape))
            raise ValueError(f"{source} is a router for images of {ours}, not {theirs}: train one for these")
        if base != self.base:
            raise ValueError(
                f"{source} is a router for the base classifier {self.base[:12]}, not {base[:12]}: name that one, or "
                "train a router for this one"
            )


def load_router(path: str | os.PathLike[str], *, arch: str | None = None, fallback: bool = True) -> RouterCheckpoint:
    """Read what `srs-train --method router` wrote. Nothing in the file is run.

    Parameters
    ----------
    path : path
    arch : str, optional
        `package.module:factory` where the router's network is of your own: a factory's module is imported, so a file
        alone never makes that happen. Must agree with the file.
    fallback : bool, default=True
        Take the best constant level where held-out images did not show the router to be better; False takes the router
        all the same.

    Raises
    ------
    ValueError
        One line that names the file and the remedy: where it is no router's checkpoint or is damaged, where training is
        not finished, and where weights or numbers are not what they should be.
    OSError
        Where it cannot be opened.
    """
    file = Path(path)
    content = read_file(file)
    if not holds_router(content):
        raise ValueError(f"{file} holds no router: give what srs-train --method router wrote")
    about = content[ROUTER]
    said = _said(file, about)
    validation = about.get("validation")
    if validation is None:
        raise ValueError(f"{file}: training of this router is not finished; go on with srs-train and --resume")
    found = _validation(file, validation, said.levels)
    router = _network(file, content, said, arch)
    sigmas = np.array(said.levels)
    if fallback and not found.better:
        constant = sigmas[found.level : found.level + 1]
        return RouterCheckpoint(router=None, sigmas=constant, router_sigma=None, validation=found, **vars(said))
    return RouterCheckpoint(
        router=router, sigmas=sigmas, router_sigma=said.trained_sigma, validation=found, **vars(said)
    )


@dataclass(frozen=True, kw_only=True)
class RouterFacts:
    """What is fixed about a router before it is trained; attributes as in `RouterCheckpoint`."""

    levels: tuple[float, ...]
    trained_sigma: float
    kind: str
    loss: str
    base: str
    image_shape: tuple[int, ...]
    seed: int

    def entry(self, validation: RouterValidation | None) -> dict[str, Any]:
        """Return the entry of a checkpoint, as plain values."""
        about = asdict(self) | {"levels": list(self.levels), "image_shape": list(self.image_shape)}
        about["router_sigma"] = about.pop("trained_sigma")
        return about | {"validation": None if validation is None else _plain(validation)}


def _plain(validation: RouterValidation) -> dict[str, Any]:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(validation).items()}


def _said(file: Path, about: Mapping[Any, Any]) -> RouterFacts:
    """Return what a file says of its router, all of it checked."""
    levels: Any = about.get("levels")
    shape: Any = about.get("image_shape")
    increasing = (
        isinstance(levels, list)
        and 2 <= len(levels) <= _MOST_LEVELS
        and all(map(_positive, levels))
        and all(a < b for a, b in itertools.pairwise(levels))
    )
    checks = {
        "levels": increasing,
        "router_sigma": _positive(about.get("router_sigma")),
        "kind": isinstance(about.get("kind"), str) and about["kind"] in KINDS,
        "loss": isinstance(about.get("loss"), str) and about["loss"] in ROUTER_LOSSES,
        "base": isinstance(about.get("base"), str) and re.fullmatch("[0-9a-f]{64}", about["base"]) is not None,
        "image_shape": isinstance(shape, list) and len(shape) == 3 and all(_count(side) and side for side in shape),
        "seed": _count(about.get("seed")),
    }
    for name, right in checks.items():
        if not right:
            raise ValueError(f"{file} is damaged: {name} of its router is not what srs-train writes; train it anew")
    return RouterFacts(
        levels=tuple(levels),
        trained_sigma=about["router_sigma"],
        image_shape=tuple(shape),
        **{name: about[name] for name in ("kind", "loss", "base", "seed")},
    )


def _validation(file: Path, values: Any, levels: tuple[float, ...]) -> RouterValidation:
    """Return what a file says of held-out images."""
    kinds = get_type_hints(RouterValidation)
    right = isinstance(values, Mapping) and set(values) == {field.name for field in fields(RouterValidation)}
    if right:
        for name, value in values.items():
            if kinds[name] is int:
                right &= _count(value)
            elif kinds[name] is float:
                right &= _number(value)
            else:
                right &= isinstance(value, list) and len(value) == len(levels) and all(map(_number, value))
    if not right or tuple(values["sigmas"]) != levels:
        raise ValueError(f"{file} is damaged: validation of its router is not what srs-train writes; train it anew")
    plain: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}
    return RouterValidation(**plain)


def _network(file: Path, content: Mapping[Any, Any], said: RouterFacts, arch: str | None) -> nn.Module:
    named, normalizer = named_arch(file, arch, content.get("arch")), content.get("normalizer")
    if not isinstance(normalizer, str) or normalizer not in NORMALIZERS:
        raise ValueError(f"{file} is damaged: it does not name its normaliser; train it anew")
    with torch.random.fork_rng(devices=[]):
        net = router_network(named, len(said.levels), kind=said.kind)
    take_state(file, content, net)
    return normalized(net, normalizer).eval()


def _number(value: Any) -> bool:
    return isinstance(value, float) and math.isfinite(value)


def _positive(value: Any) -> bool:
    return _number(value) and value > 0


def _count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63
