"""Augmentation of training images, whole batches at a time, from a generator that the caller seeds."""

from collections.abc import Callable, Mapping

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional


def unchanged(images: Float[Tensor, "b c h w"], generator: torch.Generator) -> Float[Tensor, "b c h w"]:
    """Return the images as they are."""
    return images


def crop_flip(images: Float[Tensor, "b c h w"], generator: torch.Generator) -> Float[Tensor, "b c h w"]:
    """Shift every image by up to an eighth of its width, black coming in, and mirror every second one on average.

    For 32x32 images this is CIFAR's usual "crop with padding 4, flip". Shift and mirroring are drawn per image.
    """
    b, _, h, w = images.shape
    pad = max(1, w // 8)
    down, right = (torch.randint(0, 2 * pad + 1, (b, 1), generator=generator, device=images.device) for _ in range(2))
    mirrored = torch.rand((b, 1), generator=generator, device=images.device) < 0.5
    rows = down + torch.arange(h, device=images.device)
    columns = torch.arange(w, device=images.device)
    columns = right + torch.where(mirrored, w - 1 - columns, columns)
    padded = functional.pad(images, (pad, pad, pad, pad))
    picked = padded.permute(0, 2, 3, 1)[
        torch.arange(b, device=images.device)[:, None, None], rows[:, :, None], columns[:, None, :]
    ]
    return picked.permute(0, 3, 1, 2).contiguous()


#: Augmentations by name.
AUGMENTATIONS: Mapping[str, Callable[[Tensor, torch.Generator], Tensor]] = {"none": unchanged, "crop-flip": crop_flip}
