"""Arrays from and to `.npy` and `.npz` files, with errors that name the file, the array and the remedy."""

import os
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

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


def has_array(source: str, keys: Sequence[str]) -> bool:
    """Whether the file is an `.npz` that holds an array of one of these names."""
    path, _ = _split(source)
    return path.suffix == ".npz" and any(key in _load(path) for key in keys)


def write_arrays(path: Path, arrays: Mapping[str, Any]) -> None:
    """Write an `.npz` atomically: the file is the old one or the whole new one, also after a crash."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            np.savez(file, **arrays)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _split(source: str) -> tuple[Path, str | None]:
    file, colon, key = source.rpartition(":")
    if colon and file.endswith(".npz") and not Path(source).exists():
        return Path(file), key
    return Path(source), None


def _load(path: Path) -> dict[str, np.ndarray]:
    if path.suffix not in (".npy", ".npz"):
        raise ValueError(f"{path}: only .npy and .npz files are read; {REMEDY}")
    try:
        with path.open("rb") as raw:
            loaded = np.load(raw, allow_pickle=False)
            return dict(loaded) if isinstance(loaded, np.lib.npyio.NpzFile) else {"": loaded}
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such file") from None
    except (ValueError, EOFError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is damaged, or not a plain array file; {REMEDY}") from error
