"""Noise made where the model runs: from integers alone, and the same bits as on the CPU."""

import functools
import importlib.util
from collections.abc import Callable
from typing import Protocol

import numpy as np
import torch
from jaxtyping import Float32, Float64, Int64, Shaped
from torch import Tensor

from smoothing._voting import device_operations
from smoothing._voting.device_operations import Operations
from smoothing._voting.device_tables import on_device
from smoothing._voting.discrete import TOP
from smoothing._voting.philox import Philox, check_range
from smoothing._voting.samplers import Noise
from smoothing.machine import current

#: How noise can be made on a device.
WAYS = ("eager", "compiled", "triton")


def ways(device: torch.device) -> tuple[str, ...]:
    """Return how noise can be made on a device without compiling PyTorch's operations, the fastest way first."""
    fused = device.type in ("cuda", "xpu") and importlib.util.find_spec("triton") is not None
    return ("triton", "eager") if fused else ("eager",)


class DeviceNoise:
    """Noisy images of some images, made on a device from the names of samples alone.

    Parameters
    ----------
    noise : Noise
        On stream "philox4x32". `fill` gives the same bits as its `draw` and `add`.
    images : float32 tensor of shape (n, c, h, w)
        On the CPU, checked by `noise.check`; copied to the device once.
    indices : int64 array of shape (n,)
        Each image's index in its data set.
    sigmas : float64 array of shape (levels,)
    stage : {"select", "estimate", "predict"}
    device : torch.device
    how : {"eager", "compiled", "triton"}, default=the first of `ways(device)`

    Attributes
    ----------
    undecided : int64 tensor, on the device
        How many words so far were equal to a threshold of the discrete sampler. The pixels of such words are not right:
        whoever reads a number other than 0 here has to make the noise on the CPU, where further bits decide.
    """

    def __init__(
        self,
        noise: Noise,
        images: Float32[Tensor, "n c h w"],
        indices: Int64[np.ndarray, " n"],
        sigmas: Float64[np.ndarray, " levels"],
        stage: str,
        device: torch.device,
        how: str | None = None,
    ) -> None:
        words = getattr(noise, "words", None)
        if not isinstance(words, Philox):
            raise ValueError(f"stream = {noise.stream!r}: devices make noise from 'philox4x32' alone")
        how = ways(device)[0] if how is None else how
        if how not in WAYS:
            raise ValueError(f"how = {how!r}: choose {', '.join(map(repr, WAYS))}")
        for index in indices.tolist():
            check_range(index, 0)
        self.shape = tuple(images.shape[1:])
        self.device = device
        flat = images.permute(0, 2, 3, 1).flatten(1).contiguous()
        if noise.name == "discrete":
            flat = (flat * TOP).round().to(torch.uint8)
        with current(device):
            self.undecided = torch.zeros((), dtype=torch.int64, device=device)
            self._images = on_device(flat.numpy(), device)
            self._index = on_device(np.array(indices), device)
            self._maker = _maker(how)(words, noise.name, sigmas.tolist(), stage, flat.shape[1], device)

    def fill(
        self, row: Int64[Tensor, " b"], sample: Int64[Tensor, " b"], level: Int64[Tensor, " b"]
    ) -> Float32[Tensor, "b c h w"]:
        """Return noisy copies of the image in each row, the named sample at the named level, in channels-last memory.

        All three lie on the device, and nothing is read back from it. Samples are numbered from 0 to 2**32 - 1.
        """
        return self.noisy(row, sample, level, None)

    def noisy(
        self,
        row: Int64[Tensor, " b"],
        sample: Int64[Tensor, " b"],
        level: Int64[Tensor, " b"],
        given: Int64[Tensor, "b pixels"] | None,
    ) -> Float32[Tensor, "b c h w"]:
        """As `fill`, but with the words, minus 2**63, that are `given`."""
        c, h, w = self.shape
        with current(self.device):
            out = torch.empty((len(row), self._images.shape[1]), dtype=torch.float32, device=self.device)
            self._maker.fill(out, row, sample, level, self._images, self._index, given, self.undecided)
        return out.reshape(len(row), h, w, c).permute(0, 3, 1, 2)


class Maker(Protocol):
    """A way to make noise on a device."""

    def fill(
        self,
        out: Float32[Tensor, "b pixels"],
        row: Int64[Tensor, " b"],
        sample: Int64[Tensor, " b"],
        level: Int64[Tensor, " b"],
        images: Shaped[Tensor, "n pixels"],
        index: Int64[Tensor, " n"],
        given: Int64[Tensor, "b pixels"] | None,
        undecided: Int64[Tensor, ""],
    ) -> None:
        """Write noisy pixels into `out`, and add to `undecided` how many words did not decide."""
        ...


def blocks(counters: Int64[Tensor, "n 4"], low: int, high: int, how: str) -> Int64[Tensor, "n 4"]:
    """Return the blocks of Philox4x32-10 for counters, on their device, and one key."""
    if how == "triton":
        from smoothing._voting import triton_noise  # Triton is not there on every machine

        return triton_noise.blocks(counters, low, high)
    return device_operations.blocks(counters, low, high, compiled=how == "compiled")


def _maker(how: str) -> Callable[..., Maker]:
    if how == "triton":
        from smoothing._voting.triton_noise import Kernels  # Triton is not there on every machine

        return Kernels
    return functools.partial(Operations, compiled=how == "compiled")
