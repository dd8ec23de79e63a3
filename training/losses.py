"""What training minimises, from the logits of m noisy copies of every image."""

import math
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional


@runtime_checkable
class Loss(Protocol):
    """A loss per image, differentiable in the logits."""

    def __call__(
        self,
        logits: Float[Tensor, "m b classes"],
        labels: Int64[Tensor, " b"] | Float[Tensor, "b classes"],
        sigma: Float[Tensor, " b"],
        /,
    ) -> Float[Tensor, " b"]:
        """Return the loss of every image from its m noisy copies, its label, as `fit` was given it, and its noise."""


def cross_entropy(
    logits: Float[Tensor, "m b classes"], labels: Int64[Tensor, " b"], sigma: Float[Tensor, " b"]
) -> Float[Tensor, " b"]:
    """Return the mean over the copies of -log f(x + eta)_y, in nats: Gaussian augmentation's loss, and Smooth-Adv's.

    Whatever `sigma` is: it is there because a `Loss` gets it.
    """
    m, b = logits.shape[:2]
    return functional.cross_entropy(logits.flatten(0, 1), labels.repeat(m), reduction="none").reshape(m, b).mean(dim=0)


def soft_radius(
    logits: Float[Tensor, "m b levels"], radii: Float[Tensor, "b levels"], sigma: Float[Tensor, " b"]
) -> Float[Tensor, " b"]:
    """Return what a router's soft choice loses of each image's largest radius, max_k R_k - sum_k p_k R_k.

    p is the softmax, averaged over the copies. Minimising this maximises the expected certified radius of a level that
    is drawn with the router's probabilities (Dual Randomized Smoothing, ICLR 2026). It is 0 where all probability is at
    the best level, and has no slope for an image whose radii are all equal. In the unit of `radii`.
    """
    choice = functional.softmax(logits, dim=2).mean(dim=0)
    return radii.max(dim=1).values - (choice * radii).sum(dim=1)


def best_level(
    logits: Float[Tensor, "m b levels"], radii: Float[Tensor, "b levels"], sigma: Float[Tensor, " b"]
) -> Float[Tensor, " b"]:
    """Return the cross-entropy of a router's choice to the level of the largest radius, in nats, mean over the copies.

    The smallest level where several have it. 0 for an image that has no radius at any level: there is nothing to choose
    (Dual Randomized Smoothing, ICLR 2026). Whatever `sigma` is.
    """
    best, level = radii.max(dim=1)
    return torch.where(best > 0, cross_entropy(logits, level, sigma), 0.0)


def mean_squared_error(
    cleaned: Float[Tensor, "m b pixels"], images: Float[Tensor, "b pixels"], sigma: Float[Tensor, " b"]
) -> Float[Tensor, " b"]:
    """Return what a denoiser leaves of the noise, |D(x + eta) - x|^2 over the number of pixels, mean over the copies.

    Whatever `sigma` is. `images` are the clean ones, flattened.
    """
    return (cleaned - images).square().mean(dim=(0, 2))


@dataclass(frozen=True)
class Macer:
    """The loss of MACER (Zhai et al., 2020): classify the smoothed image, and widen a radius that is small.

    With z the softmax averaged over the m copies and z^ the same at inverse temperature beta, an image's loss is

        -log z_y + lambda sigma / 2 max(0, gamma - xi),   xi = Phi^-1(z^_y) - Phi^-1(max_{c != y} z^_c),

    the second term only where z^ puts the label first and 0 <= xi <= gamma. sigma is the image's own.

    Attributes
    ----------
    lam : float, default=16
        Weight lambda of the radius, >= 0.
    beta : float, default=16
        Inverse temperature of the radius, > 0.
    gamma : float, default=8
        Hinge: no pull beyond xi = gamma, >= 0.

    Raises
    ------
    ValueError
        When a number is out of range.
    """

    lam: float = 16.0
    beta: float = 16.0
    gamma: float = 8.0

    def __post_init__(self) -> None:
        for name, value in (("lam", self.lam), ("gamma", self.gamma)):
            if not 0 <= value < math.inf:
                raise ValueError(f"{name} = {value}: must be finite and >= 0")
        if not 0 < self.beta < math.inf:
            raise ValueError(f"beta = {self.beta}: must be finite and > 0")

    def __call__(
        self, logits: Float[Tensor, "m b classes"], labels: Int64[Tensor, " b"], sigma: Float[Tensor, " b"]
    ) -> Float[Tensor, " b"]:
        """Return the loss of every image."""
        classification = functional.nll_loss(mean_log_softmax(logits), labels, reduction="none")

        sharp = functional.softmax(self.beta * logits, dim=2).mean(dim=0)
        (first, second), (winner, _) = (t.unbind(dim=1) for t in sharp.topk(2, dim=1))
        with torch.no_grad():
            xi = torch.special.ndtri(first) - torch.special.ndtri(second)  # infinite where z^ is 0 or 1
            pulled = (winner == labels) & (xi <= self.gamma)
        # the quantile's slope is infinite at 0 and 1: where nothing is pulled, numbers stand in that have a finite one
        first, second = torch.where(pulled, first, 0.5), torch.where(pulled, second, 0.5)
        hinge = self.gamma - (torch.special.ndtri(first) - torch.special.ndtri(second))
        return classification + self.lam * sigma / 2 * torch.where(pulled, hinge, 0.0)


@dataclass(frozen=True)
class Consistency:
    """Cross-entropy, and a penalty on noisy copies that disagree (Jeong and Shin, 2020).

    With F_i the softmax of copy i and F^ the mean over the m copies, an image's loss is

        mean_i -log F_i,y  +  lambda mean_i KL(F^ || F_i)  +  eta H(F^),

    H being the entropy, which keeps F^ from being flat. The gradient is taken through F^ too, as the authors' program
    does. With one copy the divergence is 0. Whatever `sigma` is.

    Attributes
    ----------
    lam : float, default=10
        Weight lambda of the divergence, >= 0.
    eta : float, default=0.5
        Weight of the entropy, >= 0.

    Raises
    ------
    ValueError
        When a number is out of range.
    """

    lam: float = 10.0
    eta: float = 0.5

    def __post_init__(self) -> None:
        for name, value in (("lam", self.lam), ("eta", self.eta)):
            if not 0 <= value < math.inf:
                raise ValueError(f"{name} = {value}: must be finite and >= 0")

    def __call__(
        self, logits: Float[Tensor, "m b classes"], labels: Int64[Tensor, " b"], sigma: Float[Tensor, " b"]
    ) -> Float[Tensor, " b"]:
        """Return the loss of every image."""
        log_copies = functional.log_softmax(logits, dim=2)
        log_mean = mean_log_softmax(logits)
        mean = log_mean.exp()
        divergence = (mean * (log_mean - log_copies)).sum(dim=2).mean(dim=0)
        entropy = -(mean * log_mean).sum(dim=1)
        return cross_entropy(logits, labels, sigma) + self.lam * divergence + self.eta * entropy


def mean_log_softmax(logits: Float[Tensor, "m b classes"]) -> Float[Tensor, "b classes"]:
    """Return log of the softmax's mean over the copies: finite, and so is its slope, where a probability is 0."""
    return functional.log_softmax(logits, dim=2).logsumexp(dim=0) - math.log(len(logits))
