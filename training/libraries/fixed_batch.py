"""A model that takes batches of one size, as one that takes any."""

import torch
from jaxtyping import Float
from torch import Tensor, nn


class FixedBatch(nn.Module):
    """Asks a model that takes `size` images at a time about any number; the last batch is filled up with zeros.

    Parameters
    ----------
    model : torch.nn.Module
    size : int
    """

    def __init__(self, model: nn.Module, size: int) -> None:
        super().__init__()
        self.model, self.size = model, size

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b classes"]:
        """Return logits."""
        lacking = -len(images) % self.size
        filled = torch.cat([images, images.new_zeros((lacking, *images.shape[1:]))]) if lacking else images
        logits = [self.model(batch) for batch in torch.split(filled, self.size)]
        return torch.cat(logits)[: len(images)]
