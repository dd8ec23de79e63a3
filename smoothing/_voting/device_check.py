"""Is noise that a device made the CPU's, bit for bit? Asked once per process, before any vote counts.

Compilers and drivers have been found to compute integers wrong without a word. So published answers, samples of a few
images, and words that are too rare to turn up among them are made in both places and compared.
"""

import functools

import numpy as np
import torch
from jaxtyping import Bool, Float32, Int64
from torch import Tensor

from smoothing._voting.device_noise import DeviceNoise, blocks, ways
from smoothing._voting.device_tables import SIGN
from smoothing._voting.discrete import TOP, noise_table
from smoothing._voting.philox import LARGEST
from smoothing._voting.quantile import normal
from smoothing._voting.samplers import Noise, make_noise
from smoothing.machine import out_of_memory

#: Counters, keys and answers that the authors of Philox4x32-10 published (Random123, kat_vectors).
KNOWN_ANSWERS = (
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
)

#: Images to try: an odd number of pixels, and more than one program of Triton's kernels makes.
HEIGHT, WIDTH = 5, 157
INDICES = np.array([0, 7, 2**31, LARGEST])
SIGMAS = np.array([0.001, 0.12, 1.0, 3.0])

#: Samples of image `LARGEST` with a word as rare as 1 in 2**41, found by search for seed 0 and stage "estimate".
RARE_SAMPLES = (51058775, 9830080, 59564280, 71504532)


@functools.cache
def trouble(sampler: str, device: torch.device, how: str | None = None) -> str | None:
    """Return why noise that is made in this way must not be used, None where it is right.

    Parameters
    ----------
    sampler : {"gaussian", "discrete"}
    device : torch.device
    how : {"eager", "compiled", "triton"}, default=the first of `ways(device)`
    """
    way = ways(device)[0] if how is None else how
    noise = make_noise(sampler, "philox4x32", 0)
    try:
        wrong = _known_answers(device, way) or _samples(noise, device, way) or _rare_words(noise, device, way)
    except Exception as error:  # whatever compilers and drivers raise, the CPU can make the noise
        if out_of_memory(error):  # says nothing about the noise; ask again when there is room
            raise
        lines = str(error).strip().splitlines()
        wrong = f"{type(error).__name__}: {lines[0] if lines else 'no message'}"
    return wrong and f"{way} noise on {device}: {wrong}"


def usable_way(sampler: str, device: torch.device) -> tuple[str | None, list[str]]:
    """Return the first way of a device whose noise is the CPU's, None where none is, and what is wrong before it."""
    wrong: list[str] = []
    for way in ways(device):
        reason = trouble(sampler, device, way)
        if reason is None:
            return way, wrong
        wrong.append(reason)
    return None, wrong


def _known_answers(device: torch.device, how: str) -> str | None:
    """Compare Philox's blocks with the published ones."""
    for counter, key, answer in KNOWN_ANSWERS:
        numbers = torch.tensor([[int(word, 16) for word in counter.split()]], device=device)
        low, high = (int(word, 16) for word in key.split())
        found = " ".join(f"{word:08x}" for word in blocks(numbers, low, high, how)[0].tolist())
        if found != answer:
            return f"Philox4x32-10 of counter {counter} and key {key} is {found} instead of {answer}"
    return None


def _samples(noise: Noise, device: torch.device, how: str) -> str | None:
    """Compare noisy images: first, last, rare and other samples of first, last and other images."""
    others = np.random.default_rng(0).integers(0, 2**32, 7)
    samples = np.concatenate([[0, 1, 2**31 - 1, 2**31, LARGEST], others, RARE_SAMPLES])
    rows = np.arange(len(samples)) % len(INDICES)
    rows[-len(RARE_SAMPLES) :] = len(INDICES) - 1
    levels = np.arange(len(samples)) // 2 % len(SIGMAS)
    raw = np.empty((len(samples), HEIGHT, WIDTH, 1), noise.raw)
    for place, (row, sample) in enumerate(zip(rows.tolist(), samples.tolist(), strict=True)):
        noise.draw("estimate", int(INDICES[row]), sample, raw[place : place + 1])
    made = _device_noise(noise, device, how)
    found = made.fill(*(torch.from_numpy(names).to(device) for names in (rows, samples, levels)))
    return _difference(found, _noisy(noise, raw, rows, levels), np.zeros(raw.shape, np.bool_), made.undecided)


def _rare_words(noise: Noise, device: torch.device, how: str) -> str | None:
    """Compare what becomes of words near powers of two and near thresholds, and how many are found on thresholds."""
    rows = np.arange(len(SIGMAS))
    powers = np.uint64(1) << np.arange(64, dtype=np.uint64)
    near = np.unique(np.concatenate([powers - np.uint64(1), powers, powers + np.uint64(1)]))
    words = np.resize(np.concatenate([near, ~near]), (len(SIGMAS), HEIGHT * WIDTH))
    tied = np.zeros(words.shape, np.bool_)
    if noise.name == "discrete":
        for row, sigma in enumerate(SIGMAS.tolist()):
            thresholds = noise_table(sigma).thresholds
            some = np.resize(thresholds[:: max(1, len(thresholds) // 100)], 100)
            words[row, -300:] = np.concatenate([some - np.uint64(1), some, some + np.uint64(1)])
            tied[row] = np.isin(words[row], thresholds)
    made = _device_noise(noise, device, how)
    names = torch.from_numpy(rows).to(device)
    found = made.noisy(names, names, names, torch.from_numpy((words ^ SIGN).view(np.int64)).to(device))
    shape = (len(rows), HEIGHT, WIDTH, 1)
    raw = np.where(tied, np.uint64(2**62 + 1), words).reshape(shape)
    if noise.name == "gaussian":
        z = np.empty(raw.size, np.int64)
        normal(raw.ravel(), z)
        raw = z.reshape(shape)
    return _difference(found, _noisy(noise, raw, rows, rows), tied.reshape(shape), made.undecided)


def _device_noise(noise: Noise, device: torch.device, how: str) -> DeviceNoise:
    images = torch.from_numpy(_images()).permute(0, 3, 1, 2)
    return DeviceNoise(noise, images, INDICES, SIGMAS, "estimate", device, how)


def _images() -> Float32[np.ndarray, "n h w 1"]:
    """Return images of 8-bit pixels, all values among them."""
    values = np.arange(len(INDICES) * HEIGHT * WIDTH) % (TOP + 1)
    return (values.astype(np.float32) / np.float32(TOP)).reshape(len(INDICES), HEIGHT, WIDTH, 1)


def _noisy(
    noise: Noise, raw: np.ndarray, rows: Int64[np.ndarray, " b"], levels: Int64[np.ndarray, " b"]
) -> Float32[np.ndarray, "b h w 1"]:
    """Return what the CPU makes of raw numbers."""
    images, out = _images(), np.empty(raw.shape, np.float32)
    for place, (row, level) in enumerate(zip(rows.tolist(), levels.tolist(), strict=True)):
        part = slice(place, place + 1)
        noise.add(raw[part], images[row], float(SIGMAS[level]), out[part])
    return out


def _difference(
    found: Float32[Tensor, "b 1 h w"],
    expected: Float32[np.ndarray, "b h w 1"],
    tied: Bool[np.ndarray, "b h w 1"],
    undecided: Int64[Tensor, ""],
) -> str | None:
    """Return how far numbers are from the expected bits, and from the expected ties."""
    bits = np.ascontiguousarray(found.permute(0, 2, 3, 1).cpu().numpy()).view(np.int32)
    wrong = int(((bits != expected.view(np.int32)) & ~tied).sum())
    if wrong:
        return f"{wrong} of {bits.size} noisy pixels are not the CPU's"
    if int(undecided) != tied.sum():
        return f"{int(undecided)} ties were found instead of {tied.sum()}"
    return None
