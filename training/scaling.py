"""Whether a model was made for pixels on another scale: a look at labelled images, for reports alone."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float32, Int64
from torch import Tensor, nn

from smoothing.forward import evaluating, run
from smoothing.identity import own_passes
from smoothing.images import ImageSource
from training.models import NORMALIZERS, Normalize

#: Accuracy without noise from which on nothing is asked, and by how much a normaliser has to raise it to be named.
LOW, GAIN = 0.5, 0.2

#: How many images are looked at; below the first, chance could do it.
_FEWEST, _MOST, _BATCH = 20, 100, 20


@dataclass(frozen=True)
class Restored:
    """What a normaliser would do for a model that has none.

    Attributes
    ----------
    normalizer : str
        One of `training.NORMALIZERS`.
    before, after : float
        Shares of images that are classified correctly without noise: as the model is, and behind the normaliser.
    images : int
        How many images.
    """

    normalizer: str
    before: float
    after: float
    images: int

    def __str__(self) -> str:
        """Return a sentence that says so."""
        return (
            f"without noise the base classifier is right on {self.before:.0%} of {self.images} images, and on "
            f"{self.after:.0%} behind --normalizer {self.normalizer}: was it trained on pixels scaled so?"
        )


@torch.no_grad()
def restoring(
    model: nn.Module,
    images: Float32[np.ndarray, "n c h w"] | ImageSource,
    labels: Int64[np.ndarray, " n"],
    *,
    device: str | torch.device = "cpu",
) -> Restored | None:
    """Return the normaliser that restores a model's accuracy, if one of the usual ones does.

    Only a model without a normaliser that is right on fewer than `LOW` of the images, while a normaliser raises that by
    at least `GAIN` to `LOW` or more. Labels decide that, so it belongs into a report on the model: whoever takes the
    normaliser has to certify anew, and on images that had no part in it.

    Parameters
    ----------
    model : torch.nn.Module
        From images in [0, 1] to logits, on `device`.
    images, labels : arrays of shape (n, C, H, W) and (n,)
        At most a hundred of them are looked at, spread evenly; fewer than twenty say nothing.
    device : str or torch.device, default="cpu"

    Returns
    -------
    Restored or None
    """
    first = next(iter(model.children()), None)
    if isinstance(model, Normalize) or isinstance(first, Normalize) or len(images) < _FEWEST:
        return None
    chosen = np.unique(np.linspace(0, len(images) - 1, _MOST).astype(int))
    pixels = torch.from_numpy(np.ascontiguousarray(images[chosen])).to(device)
    classes = torch.from_numpy(labels[chosen]).to(device)
    evaluating(model)
    with own_passes(model):
        before = _accuracy(model, pixels, classes)
        if before >= LOW:
            return None
        after = {
            name: _accuracy(model, Normalize(*moments).to(device)(pixels), classes)
            for name, moments in NORMALIZERS.items()
            if moments is not None and len(moments[0]) == pixels.shape[1]
        }
    best = max(after, key=lambda name: after[name], default=None)
    if best is None or after[best] < max(LOW, before + GAIN):
        return None
    return Restored(best, before, after[best], len(chosen))


def _accuracy(model: nn.Module, pixels: Float32[Tensor, "n c h w"], classes: Int64[Tensor, " n"]) -> float:
    right = [
        run(model, batch).argmax(dim=1) == true
        for batch, true in zip(torch.split(pixels, _BATCH), torch.split(classes, _BATCH), strict=True)
    ]
    return float(torch.cat(right).float().mean())
