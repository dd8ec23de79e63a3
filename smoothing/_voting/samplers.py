"""How random bits become noisy images.

A sampler splits the work in two, so that several noise levels can share an image's random numbers: `draw` makes the
raw numbers of a block of samples, `add` turns them into noisy images at one level. Images are (H, W, C) here.
"""

from collections.abc import Callable, Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Float32
from torch import Tensor

from smoothing._voting.discrete import DiscreteSampler


@runtime_checkable
class Sampler(Protocol):
    """What the engine asks of a sampler; `gaussian` and `discrete` are the choices."""

    name: str
    raw: type[np.generic]  # the type of its raw random numbers

    def check(self, images: Float[Tensor, "n c h w"]) -> None:
        """Raise `ValueError` where these images, in [0, 1], are not what the sampler is exact for."""
        ...

    def draw(self, bits: np.random.SFC64, out: np.ndarray) -> None:
        """Fill `out` with the raw random numbers of samples; the first samples do not depend on how many."""
        ...

    def add(
        self,
        raw: np.ndarray,
        image: Float32[np.ndarray, "h w c"],
        sigma: float,
        out: Float32[np.ndarray, "count h w c"],
    ) -> None:
        """Write image + noise of level sigma into `out`."""
        ...

    def lookup_error(self, d: int) -> float:
        """How much two images' distance, d coordinates as float32, may differ from that of the images voted on."""
        ...


class GaussianSampler:
    """image + sigma * N(0, I) in float32, by NumPy's ziggurat.

    What every implementation of randomized smoothing does. The theorem is about exact noise and exact sums; this is
    neither, and a base classifier can be built that tells the difference. `DiscreteSampler` closes the gap for 8-bit
    images.
    """

    name = "gaussian"
    raw: type[np.generic] = np.float32

    def check(self, images: Float[Tensor, "n c h w"]) -> None:
        """Accept all images."""

    def draw(self, bits: np.random.SFC64, out: Float32[np.ndarray, "count h w c"]) -> None:
        """Fill `out` with standard normal float32 numbers."""
        np.random.Generator(bits).standard_normal(out=out, dtype=np.float32)

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

    def lookup_error(self, d: int) -> float:
        """Return 0: what is voted on is the float32 image."""
        return 0.0


#: The samplers by name.
SAMPLERS: Mapping[str, Callable[[], Sampler]] = {"gaussian": GaussianSampler, "discrete": DiscreteSampler}


def make_sampler(name: Any) -> Sampler:
    """Return a sampler by its name, or say which there are."""
    if name not in SAMPLERS:
        raise ValueError(f"sampler = {name!r}: choose {' or '.join(map(repr, SAMPLERS))}")
    return SAMPLERS[name]()
