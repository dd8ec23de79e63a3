"""Is a device's noise the CPU's? The checks for one way to make it.

A program, because Triton has to know at its start whether it is interpreted, and a compiler should see functions
without the type checks of the tests.
"""

import sys

import numpy as np
import torch

from smoothing._voting import device_check
from smoothing._voting.device_noise import DeviceNoise, blocks
from smoothing._voting.samplers import make_noise

CPU = torch.device("cpu")
SIGMAS = np.array([0.001, 0.12, 0.25, 1.0, 3.0])
INDICES = np.array([0, 5, 2**31, 2**32 - 1])

#: From the authors' file kat_vectors (Random123): counter, key, answer.
KNOWN = """
00000000 00000000 00000000 00000000 00000000 00000000 6627e8d5 e169c58d bc57ac4c 9b00dbd8
ffffffff ffffffff ffffffff ffffffff ffffffff ffffffff 408f276d 41c83b0e a20bc7c6 6d5451fd
243f6a88 85a308d3 13198a2e 03707344 a4093822 299f31d0 d16cfe09 94fdcceb 5001e420 24126ea1
"""


def images(shape):
    pixels = np.random.default_rng(0).integers(0, 256, (len(INDICES), *shape)).astype(np.float32)
    return torch.from_numpy(pixels / np.float32(255))


def names(b):
    """Rows, samples and levels of a batch, extreme samples among them."""
    samples = [0, 1, 2**31 - 1, 2**31, 2**32 - 1, *np.random.default_rng(1).integers(0, 2**32, b).tolist()][:b]
    return torch.arange(b) % len(INDICES), torch.tensor(samples), torch.arange(b) // 2 % len(SIGMAS)


def on_the_cpu(noise, pictures, row, sample, level, stage="estimate"):
    """What `draw` and `add` make of the same names."""
    made = []
    for r, s, k in zip(row.tolist(), sample.tolist(), level.tolist(), strict=True):
        image = np.ascontiguousarray(pictures[r].permute(1, 2, 0).numpy())
        raw, out = np.empty((1, *image.shape), noise.raw), np.empty((1, *image.shape), np.float32)
        noise.draw(stage, int(INDICES[r]), s, raw)
        noise.add(raw, image, float(SIGMAS[k]), out)
        made.append(torch.from_numpy(out[0]).permute(2, 0, 1))
    return torch.stack(made)


def same(found, expected):
    return torch.equal(found.contiguous().view(torch.int32), expected.contiguous().view(torch.int32))


def check(how):
    """Raise `AssertionError` where this way's numbers are not the CPU's."""
    for line in KNOWN.split("\n")[1:-1]:
        numbers = [int(word, 16) for word in line.split()]
        assert blocks(torch.tensor([numbers[:4]]), *numbers[4:6], how).tolist() == [numbers[6:]], line
    for sampler in ("discrete", "gaussian"):
        noise = make_noise(sampler, "philox4x32", 12)
        shapes = ((1, 5, 157),) if how == "compiled" else ((1, 1, 1), (3, 1, 1), (1, 5, 157))  # others compile again
        for shape in shapes:
            pictures, batch = images(shape), names(12)
            made = DeviceNoise(noise, pictures, INDICES, SIGMAS, "estimate", CPU, how)
            found = made.fill(*batch)
            assert same(found, on_the_cpu(noise, pictures, *batch)), (sampler, shape)
            assert found.is_contiguous(memory_format=torch.channels_last)
            order = torch.randperm(len(found), generator=torch.Generator().manual_seed(0))[:7]
            assert same(made.fill(*(part[order] for part in batch)), found[order]), (sampler, shape)
            assert int(made.undecided) == 0
        assert device_check.trouble(sampler, CPU, how) is None


if __name__ == "__main__":
    check(sys.argv[1])
