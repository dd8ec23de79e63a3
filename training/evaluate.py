"""What a base classifier does without noise."""

import numpy as np
import torch
from jaxtyping import Float32, Int64
from torch import nn

from training.data import FolderImages


@torch.inference_mode()
def accuracy(
    model: nn.Module,
    images: Float32[np.ndarray, "n c h w"] | FolderImages,
    labels: Int64[np.ndarray, " n"],
    *,
    device: str | torch.device = "cpu",
) -> float:
    """Return the fraction of images, without noise, that the model classifies correctly; in [0, 1]."""
    model.to(device).eval()
    right = 0
    for start in range(0, len(labels), 1024):
        part = slice(start, start + 1024)
        predicted = model(torch.from_numpy(images[part]).to(device)).argmax(dim=1).cpu()
        right += int((predicted == torch.from_numpy(labels[part])).sum())
    return right / len(labels)
