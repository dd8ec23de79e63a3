"""SmoothMix: half-way to an adversarial image, the smoothed classifier is to be less sure (Jeong et al., 2021)."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional

from training.attack import SmoothAdv
from training.losses import mean_log_softmax


@dataclass(frozen=True)
class SmoothMix:
    """A second set of images, mixed from each image and an adversarial one, and their part of the loss.

    The adversarial image x~ is `steps` steps of equal length away along normalised gradients of the smoothed
    classifier's loss, no ball around it: the path is `reach` sigma long. The mixed image is x + lambda (x~ - x), lambda
    ~ U(0, 1/2). With F_i the softmax of copy i of the mixed image and F^ the mean softmax of the m copies of the image
    itself, under the same noise, the part is

        eta 1[argmax F^ = y] mean_i KL((1 - lambda) F^ + lambda / K || F_i),

    which is added to the loss of the copies themselves. The gradient is taken through F^ too, as the authors' program
    does. That program passes the two sets through the network one after the other; here they go together, which makes
    a difference where batches are normalised. Its images after one step in place of x are left out.

    Attributes
    ----------
    eta : float, default=5
        Weight of the mixed images, >= 0.
    reach : float, default=8
        Length of the path to x~, in units of each image's sigma, > 0: 8 in the published settings.
    steps : int, default=4
        Gradient steps, >= 1; each costs m forward and backward passes an image.

    Raises
    ------
    ValueError
        When a number is out of range.
    """

    eta: float = 5.0
    reach: float = 8.0
    steps: int = 4

    def __post_init__(self) -> None:
        if not 0 <= self.eta < math.inf:
            raise ValueError(f"eta = {self.eta}: must be finite and >= 0")
        if not 0 < self.reach < math.inf:
            raise ValueError(f"reach = {self.reach}: must be finite and > 0")
        if self.steps < 1:
            raise ValueError(f"steps = {self.steps}: must be at least 1 for SmoothMix")

    def mixed(
        self,
        model: nn.Module,
        images: Float[Tensor, "b c h w"],
        labels: Int64[Tensor, " b"],
        *,
        noise: Float[Tensor, "m b c h w"],
        sigma: Float[Tensor, " b"],
        share: Float[Tensor, " b"],
    ) -> Float[Tensor, "b c h w"]:
        """Return x + lambda (x~ - x), in [0, 1], for images x in [0, 1], sigma > 0 and lambda = `share`."""
        # a path of `steps` equal steps never leaves a ball that is as large as the path is long
        walk = SmoothAdv(self.reach, self.steps, step_size=self.reach / self.steps)
        far = walk(model, images, labels, noise=noise, scale=sigma)
        return images + share.reshape(-1, 1, 1, 1) * (far - images)

    def loss(
        self,
        logits: Float[Tensor, "m b classes"],
        mixed: Float[Tensor, "m b classes"],
        labels: Int64[Tensor, " b"],
        *,
        share: Float[Tensor, " b"],
    ) -> Float[Tensor, " b"]:
        """Return the mixed images' part of the loss, from the logits of both sets."""
        log_mean = mean_log_softmax(logits)
        lam = share.unsqueeze(1)
        log_target = torch.logaddexp(torch.log1p(-lam) + log_mean, torch.log(lam / logits.shape[2]))
        log_copies = functional.log_softmax(mixed, dim=2)
        divergence = (log_target.exp() * (log_target - log_copies)).sum(dim=2).mean(dim=0)
        return self.eta * torch.where(log_mean.argmax(dim=1) == labels, divergence, 0.0)
