"""What a stage of training computes, and how: settings that are checked when they are made."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float32
from torch import Tensor, nn

from smoothing._validate import check_array
from training.attack import SmoothAdv
from training.augment import AUGMENTATIONS
from training.losses import Loss, cross_entropy
from training.smoothmix import SmoothMix


@dataclass(frozen=True)
class WeightedLevels:
    """Noise levels that are drawn, anew per image and epoch, with probabilities in proportion to weights.

    In expectation the gradient is that of a loss which is weighted so; but no pass is spent on what counts little.

    Attributes
    ----------
    sigmas : tuple of float
        Levels, finite and >= 0.
    weights : tuple of float
        Their weights, finite and > 0.

    Raises
    ------
    ValueError
        When there are not as many of each, or a number is out of range.
    """

    sigmas: tuple[float, ...]
    weights: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.sigmas or len(self.sigmas) != len(self.weights):
            raise ValueError(
                f"{len(self.sigmas)} levels and {len(self.weights)} weights: need as many of each, and at least one"
            )
        for sigma in self.sigmas:
            if not 0 <= sigma < math.inf:
                raise ValueError(f"sigmas hold {sigma}: must be finite and >= 0")
        for weight in self.weights:
            if not 0 < weight < math.inf:
                raise ValueError(f"weights hold {weight}: must be finite and > 0")

    def draw(self, n: int, generator: torch.Generator) -> Float32[Tensor, " n"]:
        """Return the levels of n images, from a generator of the CPU."""
        weights = torch.tensor(self.weights, dtype=torch.float64)
        ends = (weights / weights.max()).cumsum(0)  # the sum of huge weights would be infinite
        uniform = torch.rand(n, generator=generator, dtype=torch.float64)
        return torch.tensor(self.sigmas)[torch.searchsorted(ends / ends[-1], uniform)]


@dataclass(frozen=True, kw_only=True, eq=False)
class Stage:
    """What one stage of training computes.

    Attributes
    ----------
    epochs : int
        Passes over the images.
    sigma : tuple of two floats, WeightedLevels, or float array of shape (n,)
        Noise: bounds of Eq. 4's uniform distribution, drawn anew per image and epoch; levels drawn likewise, with
        weights; or each image's own level.
    lr : float
        Initial learning rate.
    m : int, default=1
        Noise samples per image and step, for the attack and for the loss.
    attack : SmoothAdv, optional
        Train on adversarial examples, under the very noise that they were made for.
    mix : SmoothMix, optional
        Train on mixed images as well, in place of an attack; every sigma must be > 0.
    warmup : int, default=1
        Epochs until the attack has its whole epsilon, or mixed images their whole weight, which grows in equal steps.
    loss : Loss, default=cross_entropy
        Of the images themselves.
    optimizer : {"sgd", "adam"}, default="sgd"
        SGD has momentum 0.9; both have the weight decay given.
    weight_decay : float, default=1e-4
    schedule : {"step", "cosine"}, default="step"
        "step" divides the learning rate by 10 every `drop_every` epochs; "cosine" brings it to 0, step by step.
    drop_every : int, default=50
    batch_size : int, default=256
        Images per step, over all processes; the batches of an epoch differ by at most one image.
    augment : str, default="none"
        One of `training.AUGMENTATIONS`.
    name : str, default="train"
        Names the stage in logs; part of its random streams' name.

    Raises
    ------
    ValueError
        When a setting is out of range; the message names it.
    """

    epochs: int
    sigma: tuple[float, float] | WeightedLevels | Float32[np.ndarray, " n"]
    lr: float
    m: int = 1
    attack: SmoothAdv | None = None
    mix: SmoothMix | None = None
    warmup: int = 1
    loss: Loss = field(default=cross_entropy)
    optimizer: Literal["sgd", "adam"] = "sgd"
    weight_decay: float = 1e-4
    schedule: Literal["step", "cosine"] = "step"
    drop_every: int = 50
    batch_size: int = 256
    augment: str = "none"
    name: str = "train"

    def __post_init__(self) -> None:
        if isinstance(self.sigma, tuple):
            low, high = self.sigma
            if not 0 <= low <= high < math.inf:
                raise ValueError(f"sigma range [{low}, {high}]: need 0 <= sigma_min <= sigma_max, finite")
        elif isinstance(self.sigma, WeightedLevels):
            low = min(self.sigma.sigmas)
        else:
            levels = check_array("sigma", self.sigma)
            if not (np.isfinite(levels).all() and (levels >= 0).all()):
                raise ValueError("sigma: every image's level must be finite and >= 0")
            low = levels.min(initial=math.inf)
        if self.mix is not None and low == 0:
            raise ValueError("sigma = 0.0: SmoothMix walks lengths in units of sigma, which must be > 0")
        if self.mix is not None and self.attack is not None:
            raise ValueError("mix: makes adversarial images of its own; leave attack out")
        for name in ("epochs", "m", "warmup", "drop_every", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} = {getattr(self, name)}: must be at least 1")
        if not 0 < self.lr < math.inf:
            raise ValueError(f"lr = {self.lr}: must be finite and > 0")
        if not 0 <= self.weight_decay < math.inf:
            raise ValueError(f"weight_decay = {self.weight_decay}: must be finite and >= 0")
        for name, known in (("optimizer", OPTIMIZERS), ("schedule", SCHEDULES), ("augment", AUGMENTATIONS)):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} = {getattr(self, name)!r}: choose {', '.join(known)}")

    @property
    def passes(self) -> int:
        """Forward passes of a training image in an epoch, as many backward: m for each attack step, m to learn.

        With `mix` there are m more, for the mixed image.
        """
        if self.mix is not None:
            return self.m * (self.mix.steps + 2)
        return self.m * (1 + (0 if self.attack is None else self.attack.steps))


@dataclass(frozen=True, kw_only=True)
class Engine:
    """How a stage is computed. Other choices give other rounding; other parts or processes, other noise as well.

    Attributes
    ----------
    device : str, default="auto"
        "auto" is CUDA where there is any, each process its GPU, else the CPU; or "cpu", "cuda", "cuda:1", ...
    precision : {"float32", "bfloat16"}, default="float32"
        bfloat16 computes the network under autocast; weights, loss and optimizer stay float32.
    accumulate : int, default=1
        Parts of a batch that are computed one after the other, to save memory.
    compile : bool, default=False
        Compile the network with torch.compile.
    channels_last : bool, default=True
        Memory format of weights and activations.

    Raises
    ------
    ValueError
        For a precision that is not known, or accumulate < 1.
    """

    device: str = "auto"
    precision: Literal["float32", "bfloat16"] = "float32"
    accumulate: int = 1
    compile: bool = False
    channels_last: bool = True

    def __post_init__(self) -> None:
        if self.precision not in ("float32", "bfloat16"):
            raise ValueError(f"precision = {self.precision!r}: choose float32 or bfloat16")
        if self.accumulate < 1:
            raise ValueError(f"accumulate = {self.accumulate}: must be at least 1")


def _sgd(parameters: Iterable[nn.Parameter], lr: float, weight_decay: float) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=lr, momentum=0.9, weight_decay=weight_decay)


def _adam(parameters: Iterable[nn.Parameter], lr: float, weight_decay: float) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=lr, weight_decay=weight_decay)


#: Optimizers by name, made from parameters, learning rate and weight decay.
OPTIMIZERS: Mapping[str, Callable[[Iterable[nn.Parameter], float, float], torch.optim.Optimizer]] = {
    "sgd": _sgd,
    "adam": _adam,
}

#: Factors of the learning rate, from the stage and the epochs done, a fraction counted in.
SCHEDULES: Mapping[str, Callable[[Stage, float], float]] = {
    "step": lambda stage, epoch: 0.1 ** int(epoch // stage.drop_every),
    "cosine": lambda stage, epoch: (1 + math.cos(math.pi * epoch / stage.epochs)) / 2,
}
