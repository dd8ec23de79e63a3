"""Checkpoints of denoisers: for which noise levels and images, and whose answers they learned to keep."""

import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from training.checkpoint_files import read_file
from training.checkpoints import DENOISER, holds_denoiser, take_state
from training.denoisers import DENOISERS, Denoiser, denoiser_network

#: Levels that differ by less than this, relatively, are the same: grids are made by multiplication.
_ROUNDING = 1e-6

#: More channels than this are no image, but a damaged file.
_MOST_CHANNELS = 1024


@dataclass(frozen=True, kw_only=True)
class DenoiserFacts:
    """What is fixed about a denoiser before it is trained.

    Attributes
    ----------
    sigma_min, sigma_max : float
        The noise levels that it is trained for.
    image_shape : tuple of int
        (C, H, W).
    base : str or None
        SHA-256 of the classifier whose answers it learns to keep: `identity.weights` of a `SmoothedClassifier`. None:
        it learns to return the images alone.
    seed : int
    """

    sigma_min: float
    sigma_max: float
    image_shape: tuple[int, ...]
    base: str | None
    seed: int

    def entry(self) -> dict[str, Any]:
        """Return the entry of a checkpoint, as plain values."""
        return asdict(self) | {"image_shape": list(self.image_shape)}


@dataclass(frozen=True, kw_only=True, eq=False)
class DenoiserCheckpoint:
    """A denoiser and what it is for: `denoised(c.denoiser, classifier, sigmas)`.

    Attributes
    ----------
    denoiser : Denoiser
        In evaluation mode, on the CPU.
    arch : str
        One of `training.DENOISERS`.
    facts : DenoiserFacts
        From the file, so they prove nothing about a file from somebody else; no certificate depends on them.
    """

    denoiser: Denoiser
    arch: str
    facts: DenoiserFacts

    def check(self, *, sigmas: Sequence[float], image_shape: Sequence[int], source: str) -> None:
        """Raise where the denoiser is for other noise levels, or for other images.

        Parameters
        ----------
        sigmas : sequence of float
            The levels that it is to be used at.
        image_shape : sequence of int
            (C, H, W) of the images.
        source : str
            What the message calls the denoiser, such as its file.

        Raises
        ------
        ValueError
            One line.
        """
        if tuple(image_shape) != self.facts.image_shape:
            ours, theirs = ("x".join(map(str, shape)) for shape in (self.facts.image_shape, image_shape))
            raise ValueError(f"{source} is a denoiser for images of {ours}, not {theirs}: train one for these")
        low, high = self.facts.sigma_min, self.facts.sigma_max
        for sigma in sigmas:
            if not low * (1 - _ROUNDING) <= sigma <= high * (1 + _ROUNDING):
                levels = f"sigma = {low:g}" if low == high else f"sigma from {low:g} to {high:g}"
                raise ValueError(
                    f"{source} is a denoiser for {levels}, and {sigma:g} is not among these: give other --sigmas, or "
                    "train one for this level"
                )


def load_denoiser(path: str | os.PathLike[str]) -> DenoiserCheckpoint:
    """Read what `srs-train --method denoiser` wrote. Nothing in the file is run.

    Raises
    ------
    ValueError
        One line that names the file and the remedy: where it is no denoiser's checkpoint or is damaged, and where
        weights or numbers are not what they should be.
    OSError
        Where it cannot be opened.
    """
    file = Path(path)
    content = read_file(file)
    if not holds_denoiser(content):
        raise ValueError(f"{file} holds no denoiser: give what srs-train --method denoiser wrote")
    facts, arch = _said(file, content[DENOISER]), content.get("arch")
    if not isinstance(arch, str) or arch not in DENOISERS:
        raise ValueError(f"{file} is damaged: it names no denoiser that is known here; train it anew")
    with torch.random.fork_rng(devices=[]):
        net = denoiser_network(arch, facts.image_shape[0])
    take_state(file, content, net)
    return DenoiserCheckpoint(denoiser=net.eval(), arch=arch, facts=facts)


def _said(file: Path, about: Mapping[Any, Any]) -> DenoiserFacts:
    """Return what a file says of its denoiser, all of it checked."""
    low: Any = about.get("sigma_min")
    high, shape, base = (about.get(name) for name in ("sigma_max", "image_shape", "base"))
    checks = {
        "sigma_min": _positive(low),
        "sigma_max": _positive(high) and _positive(low) and low <= high,
        "image_shape": isinstance(shape, list)
        and len(shape) == 3
        and all(_count(side) and side for side in shape)
        and shape[0] <= _MOST_CHANNELS,
        "base": base is None or (isinstance(base, str) and re.fullmatch("[0-9a-f]{64}", base) is not None),
        "seed": _count(about.get("seed")),
    }
    for name, right in checks.items():
        if not right:
            raise ValueError(f"{file} is damaged: {name} of its denoiser is not what srs-train writes; train it anew")
    return DenoiserFacts(
        sigma_min=about["sigma_min"],
        sigma_max=about["sigma_max"],
        image_shape=tuple(about["image_shape"]),
        base=base,
        seed=about["seed"],
    )


def _positive(value: Any) -> bool:
    return isinstance(value, float) and 0 < value < math.inf


def _count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63
