"""Images that need not fit into memory: looked at once, and read again, the same ones, where their turn has come."""

import hashlib
import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import closing
from typing import Any

import numpy as np
from jaxtyping import Float32, Int64
from torch import Tensor

from smoothing._validate_inputs import check_images
from smoothing.ahead import ahead
from smoothing.fingerprint import described, hash_arrays

#: Bytes of images, as float32, that are kept in memory: more are read each time that they are used.
HELD = 2**28

#: Numbers of images that are looked at together.
_TOGETHER = 2**22


class ImageSource(ABC):
    """Images in a file, a memory map, a data set: anything that gives some of them when it is asked.

    Derive from it for `certify_to_file`, with `shape`, a property (n, C, H, W), and `source[positions]`. One thread
    reads at a time, and not always the one that made the source.
    """

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """Shape (n, C, H, W).

        :meta private:
        """

    @abstractmethod
    def __getitem__(self, which: slice | Int64[np.ndarray, " b"]) -> Float32[np.ndarray, "b c h w"]:
        """Return the images of these positions as float32, pixels in [0, 1]; always the same ones."""

    def __len__(self) -> int:
        return self.shape[0]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """Return all images, in memory."""
        return np.asarray(self[:], dtype=dtype)


class RunImages(ImageSource):
    """The images of a run, by their positions in it: checked, hashed, and the same whenever they are asked for.

    All of them are read once to begin with. Up to `HELD` bytes they stay in memory. More of them are read again where
    they are used, and compared by a hash of 16 bytes each.

    Parameters
    ----------
    source : ImageSource, or float32 array of shape (m, C, H, W)
        An array is in memory already: it is not copied where all of it is used.
    which : int array of shape (n,)
        Positions in the source of the run's images.
    look : callable, optional
        look(first, images) is called with all images, some at a time and in order, as a tensor of shape (b, C, H, W);
        `first` is the position of the first of them. It may raise `ValueError`.

    Raises
    ------
    ValueError
        Where pixels are not in [0, 1], and what the source or `look` raises.
    """

    def __init__(
        self,
        source: ImageSource | np.ndarray,
        which: Int64[np.ndarray, " n"],
        *,
        look: Callable[[int, Tensor], None] | None = None,
    ) -> None:
        self._source, self._which = source, which
        self._hash = hashlib.sha256(described(self.shape, np.dtype(np.float32)))
        held = isinstance(source, np.ndarray) or 4 * math.prod(self.shape) <= HELD
        self._held = np.empty(self.shape, np.float32) if held else None
        self._digests = np.empty((0 if held else len(which), 16), dtype=np.uint8)
        if isinstance(source, np.ndarray) and np.array_equal(which, np.arange(len(source))):
            self._held = source
        with closing(ahead(self._read, portions(self.shape))) as parts:
            for positions, images in zip(portions(self.shape), parts, strict=True):
                first, pixels = int(positions[0]), images.numpy()
                if look is not None:
                    look(first, images)
                self._hash.update(pixels.data)
                if self._held is None:
                    self._digests[positions] = [_digest(image) for image in pixels]
                elif self._held is not source:
                    self._held[positions] = pixels

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape (n, C, H, W).

        :meta private:
        """
        return (len(self._which), *self._source.shape[1:])

    def __getitem__(self, positions: slice | Int64[np.ndarray, " b"]) -> Float32[np.ndarray, "b c h w"]:
        if self._held is not None:
            return self._held[positions]
        rows = np.arange(len(self))[positions]
        pixels: np.ndarray = self._read(rows).numpy()
        for row, image in zip(rows.tolist(), pixels, strict=True):
            if _digest(image).tobytes() != self._digests[row].tobytes():
                raise ValueError(
                    f"test image {self._which[row]} is another one than when it was read before: leave random changes "
                    "out of the data set, and its files alone while a run lasts"
                )
        return pixels

    def sha256(self, *others: np.ndarray) -> str:
        """Return `hash_arrays` of the images, as one float32 array, and of other arrays."""
        digest = self._hash.copy()
        for array in others:
            digest.update(described(array.shape, array.dtype) + array.tobytes())
        return digest.hexdigest()

    def _read(self, positions: Int64[np.ndarray, " b"]) -> Float32[Tensor, "b c h w"]:
        return check_images(self._source[self._which[positions]])


def hash_of_images(images: ImageSource | np.ndarray, *others: np.ndarray) -> str:
    """Return `hash_arrays` of images as one float32 array, and of other arrays; images of a source in portions."""
    if isinstance(images, np.ndarray):
        return hash_arrays(images, *others)
    digest = hashlib.sha256(described(images.shape, np.dtype(np.float32)))
    for positions in portions(images.shape):
        digest.update(np.ascontiguousarray(images[positions]).data)
    for array in others:
        digest.update(described(array.shape, array.dtype) + array.tobytes())
    return digest.hexdigest()


def portions(shape: tuple[int, ...]) -> list[Int64[np.ndarray, " b"]]:
    """Return the positions of all images, in order, in parts that are small enough to be read together."""
    together = max(1, _TOGETHER // max(1, math.prod(shape[1:])))
    return np.split(np.arange(shape[0]), range(together, shape[0], together))


def _digest(image: Float32[np.ndarray, "c h w"]) -> np.ndarray:
    return np.frombuffer(hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=16).digest(), dtype=np.uint8)
