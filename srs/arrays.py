"""Arrays named on a command line, with errors that name the file, the array and the remedy."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from regions.files import read_arrays

REMEDY = "give a file written by numpy.save or numpy.savez"


def read_array(source: str, keys: Sequence[str]) -> np.ndarray:
    """Read one array from FILE.npy, FILE.npz or FILE.npz:KEY.

    Without a KEY, an `.npz` must hold one array only, or exactly one whose name is in `keys`.

    Raises
    ------
    ValueError
        If the file is not readable as such, or the array is not there; nothing is ever unpickled.
    FileNotFoundError
        If there is no such file.
    """
    path, key = _split(source)
    arrays = _load(path)
    if key is not None:
        if key not in arrays:
            raise ValueError(f"{path} has no array {key!r}: it holds {', '.join(arrays) or 'nothing'}")
        return arrays[key]
    names = [name for name in arrays if name in keys] or list(arrays)
    if len(names) != 1:
        held = ", ".join(arrays) or "nothing"
        raise ValueError(f"{path} holds {held}: name the array to use, as in {path}:{names[0] if names else 'KEY'}")
    return arrays[names[0]]


def as_pixels(array: np.ndarray, source: str) -> Float32[np.ndarray, "..."]:
    """Return images as float32 in [0, 1]: floats as they are, 8-bit integers divided by 255, False and True as 0 and 1.

    Raises
    ------
    ValueError
        Where it is not certain which grey levels are meant; the message names `source`, the reason and the remedy.
    """
    kind = array.dtype.kind
    if kind == "b" or not array.size:
        return np.asarray(array.astype(np.float32))
    if array.dtype == np.uint8:
        if array.max() == 1:
            raise ValueError(f"{source}: 8-bit integers are grey levels up to 255, here up to 1; give them as floats")
        return np.asarray(array.astype(np.float32) / np.float32(255))
    if kind != "f":
        raise ValueError(f"{source} holds {array.dtype}: pixels are floats in [0, 1] or 8-bit integers (uint8)")
    inside = (array >= 0) & (array <= 1)  # false for NaN too
    if not inside.all():
        where = np.unravel_index(int(np.argmin(inside)), array.shape)
        remedy = "; divide by the largest grey level that there can be" if array[where] > 1 else ""
        at = ", ".join(map(str, where))
        raise ValueError(
            f"{source}: pixels must be floats in [0, 1] or 8-bit (uint8), but [{at}] = {array[where]:g}{remedy}"
        )
    return np.asarray(array.astype(np.float32))


def has_array(source: str, keys: Sequence[str]) -> bool:
    """Whether the file is an `.npz` that holds an array of one of these names."""
    path, _ = _split(source)
    return path.suffix == ".npz" and any(key in _load(path) for key in keys)


def _split(source: str) -> tuple[Path, str | None]:
    file, colon, key = source.rpartition(":")
    if colon and file.endswith(".npz") and not Path(source).exists():
        return Path(file), key
    return Path(source), None


def _load(path: Path) -> dict[str, np.ndarray]:
    if path.suffix not in (".npy", ".npz"):
        raise ValueError(f"{path}: only .npy and .npz files are read; {REMEDY}")
    try:
        return read_arrays(path)
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such file") from None
    except ValueError as error:
        raise ValueError(f"{error}; {REMEDY}") from error
