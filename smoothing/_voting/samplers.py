"""How random bits become noisy images.

The work is split in two, so that several noise levels can share an image's random numbers: `draw` makes the raw numbers
of samples, `add` turns them into noisy images at one level. Images are (H, W, C) here.
"""

from collections.abc import Callable, Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Float32, Int64
from torch import Tensor

from smoothing._voting.discrete import DiscreteNoise, DiscretePixels
from smoothing._voting.noise import STREAMS, Sfc64
from smoothing._voting.philox import Philox
from smoothing._voting.quantile import add_noise, normal


@runtime_checkable
class Sampler(Protocol):
    """A distribution of noisy images; `gaussian` and `discrete` are the choices."""

    name: str

    def check(self, images: Float[Tensor, "n c h w"]) -> None:
        """Raise `ValueError` where these images, in [0, 1], are not what the sampler is exact for."""
        ...

    def lookup_error(self, d: int) -> float:
        """How much two images' distance, d coordinates as float32, may differ from that of the images voted on."""
        ...


@runtime_checkable
class Noise(Sampler, Protocol):
    """A sampler on a stream, for one seed. Several threads may use it at once."""

    stream: str
    raw: type[np.generic]  # the type of its raw random numbers

    def draw(self, stage: str, index: int, first: int, out: np.ndarray) -> None:
        """Fill `out` with the raw random numbers of samples first, first + 1, ... of one image.

        All of them lie in one block of `BLOCK` samples. A sample's numbers do not depend on which are drawn with it.
        """
        ...

    def add(
        self,
        raw: np.ndarray,
        image: Float32[np.ndarray, "h w c"],
        sigma: float,
        out: Float32[np.ndarray, "count h w c"],
    ) -> None:
        """Write image + noise of level sigma into `out`, which is contiguous."""
        ...


class Gaussian:
    """image + sigma * N(0, I) in float32.

    What every implementation of randomized smoothing does. The theorem is about exact noise and exact sums; this is
    neither, and a base classifier can be built that tells the difference. `DiscreteNoise` closes the gap for 8-bit
    images.
    """

    name = "gaussian"

    def check(self, images: Float[Tensor, "n c h w"]) -> None:
        """Accept all images."""

    def lookup_error(self, d: int) -> float:
        """Return 0: what is voted on is the float32 image."""
        return 0.0


class ZigguratNoise(Gaussian):
    """The sampler on stream "sfc64", by NumPy's ziggurat in float32."""

    stream = Sfc64.name
    raw: type[np.generic] = np.float32

    def __init__(self, words: Sfc64) -> None:
        self.words = words

    def draw(self, stage: str, index: int, first: int, out: Float32[np.ndarray, "count h w c"]) -> None:
        """Fill `out` with standard normal numbers of samples first, first + 1, ... of one image."""
        self.words.normal(stage, index, first, out)

    def add(
        self,
        raw: Float32[np.ndarray, "count h w c"],
        image: Float32[np.ndarray, "h w c"],
        sigma: float,
        out: Float32[np.ndarray, "count h w c"],
    ) -> None:
        """Write image + sigma * raw into `out`, both operations rounded to float32."""
        np.multiply(raw, np.float32(sigma), out=out)
        np.add(out, image, out=out)


class QuantileNoise(Gaussian):
    """The sampler on stream "philox4x32": quantiles of its words, the same bits on every device."""

    stream = Philox.name
    raw: type[np.generic] = np.int64

    def __init__(self, words: Philox) -> None:
        self.words = words

    def draw(self, stage: str, index: int, first: int, out: Int64[np.ndarray, "count h w c"]) -> None:
        """Fill `out` with normal numbers, in units of 2**-28, of samples first, first + 1, ... of one image."""
        words = out.view(np.uint64).reshape(len(out), -1)
        self.words.words(stage, index, first, words)
        normal(words.reshape(-1), out.reshape(-1))

    def add(
        self,
        raw: Int64[np.ndarray, "count h w c"],
        image: Float32[np.ndarray, "h w c"],
        sigma: float,
        out: Float32[np.ndarray, "count h w c"],
    ) -> None:
        """Write image + sigma * raw into `out`, the product and the sum each rounded once to float32."""
        add_noise(raw.reshape(len(raw), -1), image.reshape(-1), sigma, out.reshape(len(raw), -1))


#: The samplers by name.
SAMPLERS: Mapping[str, Callable[[], Sampler]] = {"gaussian": Gaussian, "discrete": DiscretePixels}


def make_sampler(name: Any) -> Sampler:
    """Return a sampler by its name, or say which there are."""
    if name not in SAMPLERS:
        raise ValueError(f"sampler = {name!r}: choose {' or '.join(map(repr, SAMPLERS))}")
    return SAMPLERS[name]()


#: What draws noise, by sampler and stream.
NOISES: Mapping[tuple[str, str], Callable[[int], Noise]] = {
    ("gaussian", "philox4x32"): lambda seed: QuantileNoise(Philox(seed)),
    ("gaussian", "sfc64"): lambda seed: ZigguratNoise(Sfc64(seed)),
    ("discrete", "philox4x32"): lambda seed: DiscreteNoise(Philox(seed)),
    ("discrete", "sfc64"): lambda seed: DiscreteNoise(Sfc64(seed)),
}


def make_noise(sampler: Any, stream: Any, seed: int) -> Noise:
    """Return a sampler on a stream, or say which there are."""
    make_sampler(sampler)
    if stream not in STREAMS:
        raise ValueError(f"stream = {stream!r}: choose {' or '.join(map(repr, STREAMS))}")
    return NOISES[sampler, stream](seed)
