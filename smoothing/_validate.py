"""The one place where arguments are coerced and complained about."""

import math
import operator
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor, nn

MAX_SEED = 2**128  # numpy.random.SeedSequence keeps the seed apart from the stream's name up to here
MAX_INDEX = 2**32  # and each part of the name up to here


def check_images(images: Any) -> Float[Tensor, "n c h w"]:
    """Return images as a contiguous float32 CPU tensor, or say which pixel is wrong."""
    try:
        tensor = torch.as_tensor(images).detach().cpu()
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"images: {error}; pass one numeric array of shape (n, C, H, W)") from error
    if tensor.ndim != 4 or 0 in tensor.shape:
        raise ValueError(f"images have shape {tuple(tensor.shape)}: expected (n, C, H, W) with no empty side")
    if not tensor.is_floating_point():
        raise ValueError(f"images have type {tensor.dtype}: divide 8-bit pixels by 255 and pass floats in [0, 1]")
    inside = (tensor >= 0) & (tensor <= 1)  # false for NaN too
    if not bool(inside.all()):
        where = tuple(int(i) for i in torch.nonzero(~inside)[0])
        value = float(tensor[where])
        raise ValueError(f"images[{', '.join(map(str, where))}] = {value:g}: pixels must be finite and in [0, 1]")
    return tensor.to(torch.float32).contiguous()


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


def check_choice(name: str, value: Any, choices: Iterable[str]) -> str:
    """Return one of the choices."""
    choices = list(choices)
    if value not in choices:
        raise ValueError(f"{name} = {value!r}: choose {' or '.join(map(repr, choices))}")
    return str(value)


def check_levels(sigma: Any, n: int) -> Float64[np.ndarray, " n"]:
    """Return one finite noise level > 0 per image; a single number serves all images."""
    levels = _float_array("sigma", sigma)
    if levels.ndim > 1 or levels.size not in (1, n):
        raise ValueError(f"sigma has shape {levels.shape}: expected one number or {n} of them, one per image")
    levels = np.array(np.broadcast_to(levels, (n,)))
    _refuse_first("sigma", levels, np.isfinite(levels) & (levels > 0), "noise levels must be finite and > 0")
    return levels


def check_grid(sigmas: Any) -> Float64[np.ndarray, " k"]:
    """Return a grid of noise levels: at least one, finite, > 0, strictly increasing."""
    levels = np.atleast_1d(_float_array("sigmas", sigmas))
    if levels.ndim != 1 or levels.size == 0:
        raise ValueError(f"sigmas has shape {levels.shape}: expected a list of at least one noise level")
    _refuse_first("sigmas", levels, np.isfinite(levels) & (levels > 0), "noise levels must be finite and > 0")
    if not np.all(np.diff(levels) > 0):
        raise ValueError(f"sigmas = {levels.tolist()}: noise levels must increase; sort them and drop repeats")
    return levels


def check_classes(name: str, classes: Any, shape: tuple[int, ...], num_classes: int) -> Int64[np.ndarray, "*shape"]:
    """Return one class in [0, num_classes) for each entry."""
    labels = np.asarray(classes)
    if labels.shape != shape or labels.dtype.kind not in "iu":
        raise ValueError(
            f"{name} have shape {labels.shape} and type {labels.dtype}: expected whole numbers of shape {shape}"
        )
    _refuse_first(name, labels, (labels >= 0) & (labels < num_classes), f"classes are 0 to {num_classes - 1}")
    return labels.astype(np.int64)


def check_indices(indices: Any, n: int) -> Int64[np.ndarray, " n"]:
    """Return the index that names each image's noise stream; 0, 1, ... unless given."""
    names = np.arange(n) if indices is None else np.asarray(indices)
    if names.shape != (n,) or names.dtype.kind not in "iu":
        raise ValueError(f"indices have shape {names.shape} and type {names.dtype}: expected {n} whole numbers")
    _refuse_first("indices", names, (names >= 0) & (names < MAX_INDEX), "image indices must be in [0, 2**32)")
    return names.astype(np.int64)


def check_alpha(alpha: float) -> float:
    """Return a failure probability strictly between 0 and 1."""
    if not 0 < alpha < 1:
        raise ValueError(f"alpha = {alpha}: the failure probability must lie strictly between 0 and 1, such as 0.001")
    return float(alpha)


def check_count(name: str, value: Any, least: int = 1) -> int:
    """Return a whole number that is at least `least`."""
    try:
        count = operator.index(value)
    except TypeError:
        raise ValueError(f"{name} = {value!r}: expected a whole number") from None
    if count < least:
        raise ValueError(f"{name} = {count}: must be at least {least}")
    return count


def check_seed(seed: Any) -> int:
    """Return a seed that numpy keeps apart from the rest of a stream's name."""
    value = check_count("seed", seed, least=0)
    if value >= MAX_SEED:
        raise ValueError(f"seed = {value}: must be below 2**128")
    return value


def check_number(name: str, value: float, low: float, *, strict: bool) -> float:
    """Return a finite number >= low, or > low where strict."""
    if not math.isfinite(value) or value < low or (strict and value == low):
        raise ValueError(f"{name} = {value}: must be finite and {'>' if strict else '>='} {low:g}")
    return float(value)


def _float_array(name: str, values: Any) -> Float64[np.ndarray, "..."]:
    try:
        return np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name}: {error}; expected numbers") from error


def _refuse_first(name: str, values: np.ndarray, ok: np.ndarray, rule: str) -> None:
    """Raise with the first value that breaks the rule."""
    if not ok.all():
        where = np.unravel_index(int(np.argmin(ok)), ok.shape)
        raise ValueError(f"{name}[{', '.join(map(str, where))}] = {values[where]}: {rule}")
