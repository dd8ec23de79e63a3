"""Array files, which are read without unpickling and written atomically."""

from __future__ import annotations

import math
import os
import struct
import zipfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

_BOMB = 100
"""A file whose arrays are more than this many times larger than the file is refused unread ..."""

_LARGE = 2**30
"""... if they also have more bytes than this: such a file may be made to fill the memory."""

_LOCAL = struct.Struct("<4s22xHH")
"""What stands before each member of a zip file: a signature, 22 bytes, and the lengths of two fields that follow."""
_SIGNATURE = b"PK\x03\x04"


def read_arrays(path: str | os.PathLike[str], *, mapped: Collection[str] = ()) -> dict[str, np.ndarray]:
    """Arrays of an `.npz` file by name, or the one array of an `.npy` file under the name "".

    mapped : names of arrays of an `.npz` file that stay in the file, as read-only memory maps

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
            if not isinstance(loaded, np.lib.npyio.NpzFile):
                return {"": loaded}
            return {name: _map(raw, name) if name in mapped else loaded[name] for name in loaded}
        except Exception as error:  # NumPy, zipfile and the decompressors raise a dozen types for malformed bytes
            or_else = ", or compressed" if mapped else ""
            raise ValueError(f"{path} is damaged, or not a plain array file{or_else}") from error


def _map(raw: BinaryIO, name: str) -> np.ndarray:
    """A memory map of an array that is stored, uncompressed, in an `.npz` file. Its size is checked first."""
    with zipfile.ZipFile(raw) as members:
        member = members.getinfo(f"{name}.npy")
    if member.compress_type != zipfile.ZIP_STORED or member.compress_size != member.file_size:
        raise ValueError(f"{name} is compressed")
    raw.seek(member.header_offset)
    local = raw.read(_LOCAL.size)
    signature, name_length, extra_length = _LOCAL.unpack(local)
    if signature != _SIGNATURE:
        raise ValueError(f"{name} is not where the file says")
    start = member.header_offset + _LOCAL.size + name_length + extra_length
    raw.seek(start)
    if np.lib.format.read_magic(raw) != (1, 0):  # larger headers, and names of fields: not ours
        raise ValueError(f"{name} is of another version")
    shape, by_column, dtype = np.lib.format.read_array_header_1_0(raw)
    begin = raw.tell()
    if by_column or dtype.hasobject or begin + math.prod(shape) * dtype.itemsize != start + member.file_size:
        raise ValueError(f"{name} has another size than its header says")
    if not math.prod(shape):
        return np.empty(shape, dtype)
    return np.memmap(raw, dtype, "r", begin, shape)  # refuses to reach beyond the end of the file


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
