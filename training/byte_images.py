"""Images on the 8-bit grid, kept as bytes: a quarter of the memory, and the same bits wherever they are used."""

import numpy as np
from jaxtyping import Float32, Int64, UInt8

from smoothing.images import ImageSource

#: What a byte p stands for: float32(p) / float32(255), rounded once. A table, because a division is rounded otherwise
#: where it is done as a multiplication by the reciprocal, as on CUDA.
PIXELS = np.arange(256, dtype=np.float32) / np.float32(255)

#: Images that are looked at together, to bound the memory that this takes.
_ROWS = 1024


class ByteImages(ImageSource):
    """Images of 8 bits a channel: `images[indices]` is the float32 array that the bytes stand for, p / 255.

    Parameters
    ----------
    pixels : uint8 array of shape (n, C, H, W)
    """

    def __init__(self, pixels: UInt8[np.ndarray, "n c h w"]) -> None:
        self.pixels = pixels

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape (n, C, H, W).

        :meta private:
        """
        return self.pixels.shape

    def __getitem__(self, which: slice | Int64[np.ndarray, " b"]) -> Float32[np.ndarray, "b c h w"]:
        images: np.ndarray = PIXELS[self.pixels[which]]
        return images

    def subset(self, which: Int64[np.ndarray, " b"]) -> "ByteImages":
        """Return these images, as bytes."""
        return ByteImages(self.pixels[which])


def as_bytes(images: np.ndarray) -> ByteImages | None:
    """Return the images as bytes where that loses nothing: every pixel has the bits of one of `PIXELS`; else None.

    Parameters
    ----------
    images : array of shape (n, C, H, W)
        Real numbers; what counts are their values in float32.
    """
    pixels = np.empty(images.shape, dtype=np.uint8)
    for start in range(0, len(images), _ROWS):
        part = np.ascontiguousarray(images[start : start + _ROWS], dtype=np.float32)
        with np.errstate(all="ignore"):  # NaN and huge numbers become some byte, whose value is not theirs
            found = np.rint(255 * part).astype(np.uint8)
        if not _same_bits(PIXELS[found], part):
            return None
        pixels[start : start + _ROWS] = found
    return ByteImages(pixels)


def _same_bits(left: Float32[np.ndarray, "..."], right: Float32[np.ndarray, "..."]) -> bool:
    return bool(np.array_equal(left.view(np.int32), right.view(np.int32)))
