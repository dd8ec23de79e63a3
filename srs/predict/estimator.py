"""The shape in which toolboxes of adversarial robustness, ART first, ask a certified classifier."""

from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float64, Int64
from numpy.typing import ArrayLike

from srs.predict.predictor import Answers


@runtime_checkable
class Certified(Protocol):
    """What an estimator asks: `srs.LoadedRun` is one."""

    num_classes: int

    def predict(self, images: Any, *, n: int) -> Answers:
        """Answer by a vote of n samples."""
        ...

    def certify(self, images: Any, *, n: int, n0: int) -> Answers:
        """Certify with n samples."""
        ...


class Estimator:
    """A run with the methods of ART's estimators for randomized smoothing, by duck typing: ART is not imported.

    Parameters
    ----------
    G : LoadedRun
        What `srs.load_run` returns.
    n : int, default=1000
        Votes per image of `predict`.
    n0 : int, default=1000
        Selection samples per image of `certify`.

    Attributes
    ----------
    nb_classes : int
    channels_first : bool
        True.
    clip_values : tuple
        Of pixels: (0, 1).

    Notes
    -----
    Of ART's `PyTorchRandomizedSmoothing` it differs in that sigma is that of the region that holds an image, the radius
    ends where the region does, certificates are those of Eq. 2, and PREDICT abstains by the exact test at alpha.
    """

    channels_first = True
    clip_values = (0.0, 1.0)

    def __init__(self, G: Certified, *, n: int = 1000, n0: int = 1000) -> None:
        self._G, self._n, self._n0 = G, n, n0
        self.nb_classes = G.num_classes

    def certify(
        self, x: ArrayLike, n: int, batch_size: int = 32
    ) -> tuple[Int64[np.ndarray, " m"], Float64[np.ndarray, " m"]]:
        """Return each image's class, and the l2 radius within which G certainly returns it.

        With probability at least 1 - alpha, that of the run as it was loaded, per image.

        Parameters
        ----------
        x : array of shape (m, C, H, W)
            Pixels in [0, 1].
        n : int
            Estimation samples per image, fresh at every call.
        batch_size : int, default=32
            Images that are asked about together.

        Returns
        -------
        classes : int array of shape (m,)
            -1: abstained, with a radius of 0.
        radius : float array of shape (m,)
            In units of pixels in [0, 1]; 0 where no region holds the image.
        """
        parts = [self._G.certify(part, n=n, n0=self._n0) for part in _batches(x, batch_size)]
        return np.concatenate([part.predict for part in parts]), np.concatenate([part.radius for part in parts])

    def predict(self, x: ArrayLike, batch_size: int = 128) -> Float64[np.ndarray, "m k"]:
        """Return 1 for the class that G gives each image and 0 for all others; 0 for all where it abstains.

        With probability at least 1 - alpha, per image: where there is a 1, it is G's.

        Parameters
        ----------
        x : array of shape (m, C, H, W)
            Pixels in [0, 1].
        batch_size : int, default=128
            Images that are asked about together.
        """
        found = np.concatenate([self._G.predict(part, n=self._n).predict for part in _batches(x, batch_size)])
        return np.asarray(found[:, None] == np.arange(self.nb_classes), dtype=np.float64)


def _batches(x: ArrayLike, size: int) -> list[np.ndarray]:
    images = np.asarray(x)
    if images.ndim != 4 or not len(images):
        raise ValueError(f"x has shape {images.shape}: expected (m, C, H, W), m >= 1")
    if size < 1:
        raise ValueError(f"batch_size = {size}: must be at least 1")
    return [images[start : start + size] for start in range(0, len(images), size)]
