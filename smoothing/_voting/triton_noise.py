"""Noise by fused Triton kernels."""

from collections.abc import Sequence

import numpy as np
import torch
import triton
from jaxtyping import Float32, Int64, Shaped
from torch import Tensor

from smoothing._voting.device_tables import CELLS, on_device, tables_on_device
from smoothing._voting.philox import Philox
from smoothing._voting.triton_kernels import blocks_kernel, discrete_kernel, gaussian_kernel

#: Pairs of pixels that one program makes.
PAIRS = 256

#: Compiler options: a product and a sum are rounded one after the other.
OPTIONS = {"enable_fp_fusion": False}


def blocks(counters: Int64[Tensor, "n 4"], low: int, high: int) -> Int64[Tensor, "n 4"]:
    """Return the blocks of Philox4x32-10 for counters and one key."""
    out = torch.empty_like(counters)
    blocks_kernel[len(counters),](out, counters, torch.tensor([low, high], device=counters.device))
    return out


class Kernels:
    """Makes noise by one fused kernel."""

    def __init__(
        self, words: Philox, sampler: str, sigmas: Sequence[float], stage: str, pixels: int, device: torch.device
    ) -> None:
        self.sampler = sampler
        self.key = on_device(np.array([*words.keys[0].tolist(), words.last(stage)], np.int64), device)
        self.tables = tables_on_device(sampler, tuple(sigmas), device)

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
        pixels = out.shape[1]
        half = (pixels + 1) // 2
        grid = (len(out), triton.cdiv(half, PAIRS))
        names = (row, sample, level, index, images, self.key)
        words = self.key if given is None else given
        options = {"GIVEN": given is not None, "PAIRS": PAIRS, **OPTIONS}
        if self.sampler == "gaussian":
            gaussian_kernel[grid](out, words, *names, *self.tables, CELLS, pixels, half, **options)
        else:
            discrete_kernel[grid](out, words, *names, *self.tables, undecided, CELLS, pixels, half, **options)
