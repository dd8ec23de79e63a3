"""How batches come to the device: from images that lie there, or from the host, the next while a step runs."""

import math
from collections.abc import Generator, Sequence
from contextlib import closing
from functools import partial

import numpy as np
import torch
from jaxtyping import Float32, Int64, UInt8
from torch import Tensor

from smoothing.ahead import ahead
from smoothing.machine import current, free_memory
from training.byte_images import PIXELS, ByteImages, as_bytes
from training.data import Images, StreamedImages

#: The part of a device's free memory that images may take for as long as training lasts.
SHARE = 0.25

#: Images that are moved to the device together.
_ROWS = 1024


class Batches:
    """Images and labels of a training set, given out in batches on the device.

    Images are kept on an accelerator where they fit into `SHARE` of its free memory, as bytes where that loses nothing
    (`as_bytes`). Those of files or of a data set are read once for that, and kept as bytes or not at all. Otherwise a
    thread reads the next `AHEAD` batches while a step runs. On a CPU an array is used where it lies. What the batches
    hold does not depend on which of these it is, to the last bit.

    Parameters
    ----------
    images : array of shape (n, C, H, W), ByteImages or StreamedImages
        Pixels in [0, 1].
    labels : int64 array of shape (n,), or float32 array of shape (n, k)
    device : torch.device

    Raises
    ------
    ValueError
        Naming an image that cannot be read, where all are read to be kept.
    """

    def __init__(
        self,
        images: Images,
        labels: Int64[np.ndarray, " n"] | Float32[np.ndarray, "n k"],
        device: torch.device,
    ) -> None:
        away = not _is_host(device)
        if away and isinstance(images, np.ndarray):
            images = as_bytes(images) or images
        self._images = images
        self._device = device
        self._held = _moved(images, device) if away else None
        self._threaded = away or isinstance(images, StreamedImages)
        self._labels = torch.from_numpy(labels.copy()).to(device)
        self._pixels = torch.from_numpy(PIXELS).to(device)

    def epoch(
        self, parts: Sequence[Int64[np.ndarray, " _"]], sigma: Float32[Tensor, " n"]
    ) -> Generator[
        tuple[Float32[Tensor, "b c h w"], Int64[Tensor, " b"] | Float32[Tensor, "b k"], Float32[Tensor, " b"]],
        None,
        None,
    ]:
        """Give images, labels and noise levels of each part, in order. To be closed, which ends the thread.

        An image that cannot be read raises its error where its part's turn has come.

        Parameters
        ----------
        parts : sequence of int64 arrays
            Indices of images.
        sigma : tensor of shape (n,)
            Every image's noise level, on the host.
        """
        which = torch.from_numpy(np.concatenate(parts)).to(self._device)
        sizes = [len(part) for part in parts]
        labels, levels = (torch.split(values[which], sizes) for values in (self._labels, sigma.to(self._device)))
        with closing(self._stored(parts, torch.split(which, sizes))) as stored:
            for x, y, level in zip(stored, labels, levels, strict=True):
                yield self._widened(x), y, level

    def _stored(
        self, parts: Sequence[Int64[np.ndarray, " _"]], indices: Sequence[Int64[Tensor, " _"]]
    ) -> Generator[UInt8[Tensor, "_ c h w"] | Float32[Tensor, "_ c h w"], None, None]:
        """Give each part's images on the device, as bytes or float32."""
        if self._held is not None:
            for part in indices:
                yield self._held[part]
        elif self._threaded:
            with closing(ahead(self._read, parts)) as read:
                for x in read:
                    yield x.to(self._device, non_blocking=self._device.type == "cuda")  # pinned then
        else:
            yield from map(self._read, parts)

    def _read(self, part: Int64[np.ndarray, " b"]) -> UInt8[Tensor, "b c h w"] | Float32[Tensor, "b c h w"]:
        """Return a part's images on the host, ready to be copied while the host goes on."""
        images = self._images
        if isinstance(images, ByteImages):
            pixels = images.pixels[part]
        else:
            pixels = np.ascontiguousarray(images[part], dtype=np.float32)
        read = torch.from_numpy(pixels)
        if self._device.type != "cuda":
            return read
        with current(self._device):  # a thread begins with device 0, where pinning would take up memory
            return read.pin_memory()

    def _widened(self, x: UInt8[Tensor, "b c h w"] | Float32[Tensor, "b c h w"]) -> Float32[Tensor, "b c h w"]:
        if x.dtype == torch.uint8:
            return self._pixels.index_select(0, x.flatten().int()).reshape(x.shape)
        return x


def _is_host(device: torch.device) -> bool:
    """Whether the device's memory is the host's."""
    return device.type == "cpu"


def _moved(images: Images, device: torch.device) -> Tensor | None:
    """Return all images on the device, as bytes or float32; None where they do not fit, or where that is unknown.

    Those that are streamed are kept as bytes alone: None where a pixel is no byte's.
    """
    kind = np.dtype(np.float32 if isinstance(images, np.ndarray) else np.uint8)
    free = free_memory(device)
    if free is None or math.prod(images.shape) * kind.itemsize > SHARE * free:
        return None
    held = torch.empty(images.shape, dtype=torch.uint8 if kind == np.uint8 else torch.float32, device=device)
    starts = range(0, len(images), _ROWS)
    with closing(ahead(partial(_rows, images), starts)) as read:
        for start, rows in zip(starts, read, strict=True):
            if rows is None:
                return None
            held[start : start + _ROWS] = torch.from_numpy(rows)
    return held


def _rows(images: Images, start: int) -> UInt8[np.ndarray, "_ c h w"] | Float32[np.ndarray, "_ c h w"] | None:
    """Return a copy of some of the images, as bytes or float32: PyTorch takes no read-only array."""
    part = slice(start, start + _ROWS)
    if isinstance(images, ByteImages):
        return images.pixels[part].copy()
    if isinstance(images, StreamedImages):
        found = as_bytes(images[part])
        return None if found is None else found.pixels
    return np.array(images[part], dtype=np.float32)
