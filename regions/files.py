"""Plain array files: read without unpickling anything, written whole or not at all."""

from __future__ import annotations

import os
import tokenize
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

_DAMAGE = (
    ValueError, EOFError, KeyError, TypeError, NotImplementedError, MemoryError,
    tokenize.TokenError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip
"""What NumPy and zipfile raise on files that are truncated, altered, foreign or hold objects."""


def read_arrays(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Arrays of an `.npz` file by name, or the one array of an `.npy` file under the name "".

    Raises
    ------
    ValueError
        If the file is damaged or is no such file; the message names it.
    OSError
        If it cannot be opened.
    """
    with open(path, "rb") as raw:
        try:
            loaded = np.load(raw, allow_pickle=False)
            return dict(loaded) if isinstance(loaded, np.lib.npyio.NpzFile) else {"": loaded}
        except _DAMAGE as error:
            raise ValueError(f"{path} is damaged, or not a plain array file") from error


def write_arrays(path: str | os.PathLike[str], arrays: Mapping[str, Any]) -> None:
    """Write an `.npz` file atomically: also after a crash, the path holds the old file or the whole new one."""
    target = Path(path)
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        with open(partial, "wb") as file:
            np.savez(file, **arrays)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)
