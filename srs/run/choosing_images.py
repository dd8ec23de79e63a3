"""Which images of a test set a command is about."""

import warnings
from pathlib import Path

import numpy as np
from jaxtyping import Int64

from srs.arrays import read_array

#: Names the random order of `shuffled`. Fixed, so that all runs over one data set choose the same images.
_SHUFFLE_SEED = 0


def lined_up(n: int, order: str | None, file: Path | None) -> Int64[np.ndarray, " m"]:
    """Return the images of a test set of n in the order that `--image-order` or `--indices` asks for."""
    if file is not None:
        return read_indices(file, n)
    if order == "shuffled":
        return np.random.default_rng(_SHUFFLE_SEED).permutation(n).astype(np.int64)
    return np.arange(n)


def read_indices(file: Path, n: int) -> Int64[np.ndarray, " m"]:
    """Read the indices of images among n: whole numbers in lines of text, or an array in a `.npy` file.

    Raises
    ------
    ValueError
        Naming the line or entry: where it is no whole number from 0 to n - 1, or stands there twice.
    FileNotFoundError
        Where there is no such file.
    """
    if file.is_dir():
        raise ValueError(f"--indices {file}: is a folder; name a file of indices, one a line")
    found = _array(file) if file.suffix in (".npy", ".npz") else _lines(file)
    if not found:
        raise ValueError(f"--indices {file}: holds no index; write one a line")
    seen: dict[int, str] = {}
    for place, index in found:
        if not 0 <= index < n:
            raise ValueError(f"--indices {file}, {place}: {index} is no image of this test set, which has 0 to {n - 1}")
        if index in seen:
            raise ValueError(f"--indices {file}, {place}: {index} stands in {seen[index]} already; remove one")
        seen[index] = place
    return np.array(list(seen), dtype=np.int64)


def rows_of(idx: Int64[np.ndarray, " n"], file: Path | None) -> Int64[np.ndarray, " m"]:
    """Return the rows, in their order, of the images that `--indices` names among those of logs; all without it."""
    if file is None:
        return np.arange(len(idx))
    wanted = read_indices(file, int(idx.max()) + 1)
    lacking = np.setdiff1d(wanted, idx)
    if lacking.size:
        raise ValueError(f"--indices {file}: the logs have no image {lacking[0]}; leave it out")
    return np.flatnonzero(np.isin(idx, wanted))


def warn_of_one_class(labels: Int64[np.ndarray, " m"], every: Int64[np.ndarray, " n"], remedy: str) -> None:
    """Warn where several chosen images are all of one class of several: what is certified of them says little."""
    among = len(np.unique(every))
    if len(labels) > 1 and len(np.unique(labels)) == 1 < among:
        warnings.warn(
            f"all {len(labels)} chosen images have label {labels[0]}, of {among} labels that there are; {remedy}",
            stacklevel=2,
        )


def _array(file: Path) -> list[tuple[str, int]]:
    array = read_array(str(file), ("indices", "idx"))
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise ValueError(f"--indices {file}: holds {array.dtype} of shape {array.shape}; give whole numbers in one row")
    return [(f"entry {k}", index) for k, index in enumerate(array.tolist())]


def _lines(file: Path) -> list[tuple[str, int]]:
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError:
        raise FileNotFoundError(f"--indices {file}: no such file") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"--indices {file}: is no text; write one index a line") from error
    found = []
    for number, line in enumerate(lines, start=1):
        text = line.strip()
        if text and not (text.isascii() and text.removeprefix("-").isdecimal() and len(text) <= 18):
            raise ValueError(f"--indices {file}, line {number}: {text[:40]!r} is no whole number; write one a line")
        if text:
            found.append((f"line {number}", int(text)))
    return found
