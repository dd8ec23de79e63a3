"""Array files, which are read without unpickling and written atomically."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

_BOMB = 100
"""A file whose arrays are more than this many times larger than the file is refused unread ..."""

_LARGE = 2**30
"""... if they also have more bytes than this: such a file may be made to fill the memory."""


def read_arrays(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Arrays of an `.npz` file by name, or the one array of an `.npy` file under the name "".

    Raises
    ------
    ValueError
        If the file is damaged or is not an array file; the message names it.
    OSError
        If it cannot be opened.
    """
    file = Path(path)
    if file.exists() and not file.is_file():
        raise ValueError(f"{path} is no regular file: name an array file")  # reading a pipe might wait forever
    with file.open("rb") as raw:
        try:
            if zipfile.is_zipfile(raw):
                _check_size(raw, file.stat().st_size)
            raw.seek(0)
            loaded = np.load(raw, allow_pickle=False)
            return dict(loaded) if isinstance(loaded, np.lib.npyio.NpzFile) else {"": loaded}
        except Exception as error:  # NumPy, zipfile and the decompressors raise a dozen types for malformed bytes
            raise ValueError(f"{path} is damaged, or not a plain array file") from error


def _check_size(raw: BinaryIO, size: int) -> None:
    with zipfile.ZipFile(raw) as members:
        unpacked = sum(member.file_size for member in members.infolist())
    if unpacked > max(_LARGE, _BOMB * size):
        raise ValueError(f"unpacks to {unpacked:,} bytes")


def write_arrays(path: str | os.PathLike[str], arrays: Mapping[str, Any]) -> None:
    """Write an `.npz` file atomically: also after a crash, the path holds the old file or the complete new one."""
    with whole_file(path) as partial, partial.open("wb") as file:
        np.savez(file, **arrays)


@contextmanager
def whole_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a file to write, and put it at `path` if the block ends well: no reader ever finds half of it there."""
    target = Path(path)
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        yield partial
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)
