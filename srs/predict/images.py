"""Images named on a command line, as the base classifier takes them: float32, (n, C, H, W), pixels in [0, 1]."""

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from srs.arrays import as_pixels, read_array
from training import Images
from training.pictures import PictureBytes, Source, read_picture, with_channels

#: How a .npy file begins.
_NPY = b"\x93NUMPY"


@dataclass(frozen=True, eq=False)
class Query:
    """Images to classify, and what each is called."""

    names: tuple[str, ...]
    images: Float32[np.ndarray, "n c h w"]


def read_images(
    sources: tuple[str, ...],
    size: int,
    shape: tuple[int, int, int] | None,
    test_images: Callable[[], Images] | None = None,
) -> Query:
    """Read PNG, JPEG and other picture files, arrays in .npy and .npz files, and images of a test set: `test:INDEX`.

    Parameters
    ----------
    sources : tuple of str
    size : int
        Numbers per image, d of the regions.
    shape : tuple (C, H, W), optional
        Of an image; read off each file where it is not known.
    test_images : callable, optional
        Gives the test set, where there is one to speak of.

    Raises
    ------
    ValueError
        Where a file is no image, or of another size; nothing is scaled, since that would make another image of it.
    FileNotFoundError
        Where there is no such file.
    """
    names: list[str] = []
    parts = []
    for source in sources:
        if source.startswith("test:"):
            images = _test_image(source, test_images)
        elif Path(source.partition(":")[0]).suffix in (".npy", ".npz"):
            images = _array(source, size, shape)
        else:
            images = _picture(Path(source), size, shape)
        names += [source] if len(images) == 1 else [f"{source}[{k}]" for k in range(len(images))]
        parts.append(images)
    shapes = {images.shape[1:] for images in parts}
    if len(shapes) > 1:
        first, second = (" x ".join(map(str, some)) for some in list(shapes)[:2])
        raise ValueError(f"images have shapes {first} and {second}: name those of one shape at a time")
    return Query(tuple(names), np.concatenate(parts))


def _test_image(source: str, test_images: Callable[[], Images] | None) -> Float32[np.ndarray, "1 c h w"]:
    index = source.removeprefix("test:")
    if test_images is None:
        raise ValueError(
            f"{source}: a map does not say whose test images it is about; name a file, or the run's folder"
        )
    images = test_images()
    if not (index.isascii() and index.isdecimal() and len(index) < 19) or int(index) >= len(images):
        raise ValueError(f"{source}: expected test:INDEX with an index from 0 to {len(images) - 1}")
    return np.asarray(images[np.array([int(index)])])


def _array(source: str, size: int, shape: tuple[int, int, int] | None) -> Float32[np.ndarray, "n c h w"]:
    return as_images(read_array(source, ("images", "image")), size, shape, source=source)


def as_images(
    array: np.ndarray, size: int, shape: tuple[int, int, int] | None, *, source: str
) -> Float32[np.ndarray, "n c h w"]:
    """Return one image or many as float32 in [0, 1]: floats as they are, 8-bit integers divided by 255.

    Parameters
    ----------
    array : array of shape (C, H, W) or (n, C, H, W), or without C where that is 1
    size, shape
        As in `read_images`.
    source : str
        What errors call the array.

    Raises
    ------
    ValueError
        Where the array has another shape, or pixels that are none.
    """
    shape = _guessed(array.shape, size) if shape is None else shape
    if shape is None or array.size == 0 or array.size % size or not _ends_with(array.shape, shape):
        wanted = f"{size} numbers an image" if shape is None else f"{' x '.join(map(str, shape))} an image"
        last = shape is not None and (*shape[1:], shape[0]) in (array.shape, array.shape[1:])
        remedy = "; channels come first, so give numpy.moveaxis(images, -1, -3)" if last else ""
        raise ValueError(f"{source} has shape {array.shape}: expected one or many images, {wanted}{remedy}")
    return as_pixels(array.reshape(-1, *shape), source)


def decode(
    content: bytes, size: int, shape: tuple[int, int, int] | None, *, source: str
) -> Float32[np.ndarray, "n c h w"]:
    """Read a picture file, or an array in a .npy file, that came as bytes from anybody.

    Parameters
    ----------
    content : bytes
    size, shape, source
        As in `as_images`. A picture of more than four times so many pixels is not even decoded.

    Raises
    ------
    ValueError
        Where the content is no such file, or as in `as_images`.
    """
    if not content.startswith(_NPY):
        return _pixels(PictureBytes(content, source, 4 * size), size, shape)
    try:
        array = np.load(io.BytesIO(content), allow_pickle=False)
    except Exception as error:  # NumPy raises several types for malformed bytes
        raise ValueError(f"{source} is damaged, or not a plain array file") from error
    return as_images(array, size, shape, source=source)


def _guessed(found: tuple[int, ...], size: int) -> tuple[int, int, int] | None:
    """Return the shape of an image with so many numbers, of an array that is one or many."""
    for shape in (found, found[1:]):
        if len(shape) in (2, 3) and np.prod(shape) == size:
            channels, height, width = (1, *shape)[-3:]
            return channels, height, width
    return None


def _ends_with(found: tuple[int, ...], shape: tuple[int, int, int]) -> bool:
    """Whether an array is one image of this shape or many; the channel may be left out where there is one."""
    shapes = [shape, shape[1:]] if shape[0] == 1 else [shape]
    return any(found == one or found[1:] == one for one in shapes)


def _picture(file: Path, size: int, shape: tuple[int, int, int] | None) -> Float32[np.ndarray, "1 c h w"]:
    if not file.exists():
        raise FileNotFoundError(f"{file}: no such file; name an image, or an array in a .npy file")
    return _pixels(file, size, shape)


def _pixels(file: Source, size: int, shape: tuple[int, int, int] | None) -> Float32[np.ndarray, "1 c h w"]:
    picture = read_picture(file)
    height, width = picture.shape[1:]
    channels = size // (width * height) if shape is None else shape[0]
    wanted = (channels, height, width) if shape is None else shape
    if (height, width) != wanted[1:] or width * height * channels != size or channels not in (1, 3):
        expected = f"{size} numbers each" if shape is None else f"{shape[2]}x{shape[1]} with {shape[0]} channel(s)"
        raise ValueError(f"{file} has {width}x{height} pixels, the regions are about images of {expected}; resize it")
    return with_channels(picture, channels, file)[None]
