"""Files that appear whole or not at all."""

import glob
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Give a stream whose content becomes the file when the block ends well; also after a crash, it is old or new."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def check_regular(path: Path) -> None:
    """Raise `ValueError` where there is something else than a file, such as a pipe, which would be waited for."""
    if path.exists() and not path.is_file():
        raise ValueError(f"{path} is no regular file: put one in its place")


def forget_partial(path: Path) -> None:
    """Remove what killed processes left of the file's next content. Only while no other process may be writing it."""
    for partial in path.parent.glob(f".{glob.escape(path.name)}.*.partial"):
        partial.unlink()
