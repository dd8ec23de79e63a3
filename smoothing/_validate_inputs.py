"""Validation of images and models, which are PyTorch's. `_validate` has all that numbers need."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from smoothing._validate import check_array, check_number


def check_images(images: Any) -> Float[Tensor, "n c h w"]:
    """Return images as a contiguous float32 CPU tensor, or say which pixel is wrong."""
    array = check_array("images", images, "iufb")
    if array.ndim != 4 or 0 in array.shape:
        raise ValueError(f"images have shape {array.shape}: expected (n, C, H, W) with no empty side")
    if array.dtype.kind != "f":
        raise ValueError(f"images have type {array.dtype}: divide 8-bit pixels by 255 and pass floats in [0, 1]")
    inside = (array >= 0) & (array <= 1)  # false for NaN too
    if not inside.all():
        where = np.unravel_index(int(np.argmin(inside)), array.shape)
        value = float(array[where])
        raise ValueError(f"images[{', '.join(map(str, where))}] = {value:g}: pixels must be finite and in [0, 1]")
    pixels = np.ascontiguousarray(array, dtype=np.float32)
    return torch.from_numpy(pixels if pixels.flags.writeable else pixels.copy())


def check_models(model: Any) -> dict[float | None, nn.Module]:
    """Return the base classifiers by noise level; one for all levels sits under None."""
    bank = dict(model) if isinstance(model, Mapping) else {None: model}
    if not bank:
        raise ValueError("model = {}: an empty bank of base classifiers; give one module for each noise level")
    for level, base in bank.items():
        if not isinstance(base, nn.Module):
            raise ValueError(
                f"model is a {type(base).__name__}: expected a torch.nn.Module, or one for each noise level"
            )
        if level is not None:
            check_number("a noise level of the bank", level, 0, strict=True)
    return {level if level is None else float(level): base for level, base in bank.items()}
