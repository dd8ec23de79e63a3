"""How a denoiser is trained: clean images under noise of a level that it is told (Salman et al., 2020, 3.1)."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Float32, Int64
from torch import Tensor, nn

from smoothing.forward import logits_of
from training.attack import SmoothAdv
from training.loop import Learner
from training.losses import cross_entropy
from training.smoothmix import SmoothMix


@dataclass(frozen=True)
class Stability:
    """The cross-entropy of f(D(x + eta)) to the class of f(x), in nats, mean over the copies: no label is used.

    Attributes
    ----------
    classifier : torch.nn.Module
        f, from images in [0, 1] to logits: in evaluation mode, on the device of the images, its parameters fixed.
    shape : tuple of int
        (C, H, W) of an image.
    """

    classifier: nn.Module
    shape: tuple[int, ...]

    def __call__(
        self, cleaned: Float[Tensor, "m b pixels"], images: Float[Tensor, "b pixels"], sigma: Float[Tensor, " b"]
    ) -> Float[Tensor, " b"]:
        """Return the loss of every image, whatever `sigma` is."""
        with torch.no_grad():
            classes = logits_of(self.classifier(images.reshape(-1, *self.shape))).argmax(dim=1)
        logits = logits_of(self.classifier(cleaned.reshape(-1, *self.shape))).float()
        return cross_entropy(logits.reshape(*cleaned.shape[:2], -1), classes, sigma)


class DenoisingLearner(Learner):
    """A denoiser learns: its loss gets what it made of the copies, and the images, both flattened.

    A copy counts as right where the denoiser brought it nearer to its image.
    """

    def losses(
        self,
        x: Float32[Tensor, "b c h w"],
        y: Int64[Tensor, " b"] | Float32[Tensor, "b k"],
        level: Float32[Tensor, " b"],
        noise: Float32[Tensor, "m b c h w"],
        *,
        attack: SmoothAdv | None,
        mix: SmoothMix | None,
        generator: torch.Generator,
    ) -> tuple[Float[Tensor, " b"], Bool[Tensor, "m b"]]:
        """Return each image's loss, and which copies came nearer. Labels are not looked at; nobody attacks or mixes."""
        copies = len(noise)
        with self.forward_pass(x):
            cleaned = self._synced((x + noise).flatten(0, 1), level.repeat(copies)).float()
            cleaned = cleaned.reshape(copies, len(x), -1)
            loss = self._stage.loss(cleaned, x.flatten(1), level)
        away = (cleaned.detach() - x.flatten(1)).square().sum(dim=2)
        return loss, away < noise.flatten(2).square().sum(dim=2)
