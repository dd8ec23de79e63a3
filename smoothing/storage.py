"""Files that survive a kill: they appear whole, or grow by rows, and what is torn is as if it had not been written."""

import glob
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from stat import S_ISREG
from typing import BinaryIO

from filelock import FileLock, Timeout


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
    try:
        regular = S_ISREG(path.stat().st_mode)
    except FileNotFoundError:
        return
    if not regular:
        raise ValueError(f"{path} is no regular file: put one in its place")


def check_folder(path: Path, flag: str, files: Iterable[str] = (), *, beside: bool = False) -> None:
    """Raise `ValueError` now, before any work, where no folder could be made or written at `path`.

    What the folder holds is for whoever writes it to judge, but for links: in a folder from somebody else one may name
    any file, which would be cut, appended to or replaced.

    Parameters
    ----------
    path : Path
    flag : str
        What the message calls it, such as "--out".
    files : iterable of str
        Names of what is going to be written into it: what has one of them must be a regular file.
    beside : bool, default=False
        The folder will be filled beside `path` and take its place: the folder that holds it is written.
    """
    if os.path.lexists(path) and not path.is_dir():
        raise ValueError(f"{flag} {path}: is a file; name a folder")
    for name in files:
        file = path / name
        if file.is_symlink() or (file.exists() and not file.is_file()):
            raise ValueError(f"{flag} {path}: {name} is a link or no regular file; put a file in its place")
    whole = path.absolute()
    nearest = next(folder for folder in (*(() if beside else (whole,)), *whole.parents) if folder.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK):
        raise ValueError(f"{flag} {path}: cannot write in {nearest}; name a folder elsewhere")


def forget_partial(path: Path) -> None:
    """Remove what killed processes left of the file's next content. Only while no other process may be writing it."""
    for partial in path.parent.glob(f".{glob.escape(path.name)}.*.partial"):
        partial.unlink()


#: Appends rows: when it returns they are on disk, and when it raises none of them is in the file.
Append = Callable[[Iterable[Sequence[str]]], None]


@contextmanager
def locked(file: Path, what: Path, *, wait: bool = False) -> Iterator[None]:
    """Hold a lock file, or say that another process is writing `what`; with `wait`, until it has been written."""
    lock = FileLock(file)
    while True:
        try:
            lock.acquire(blocking=wait)
        except Timeout as error:
            raise ValueError(f"{what} is being written by another process: let it finish, or stop it") from error
        if file.exists():  # whoever held it last may have removed it meanwhile: then it locks nothing
            break
        lock.release()
    try:
        yield
    finally:
        lock.release()


@contextmanager
def appending(file: Path, header: Sequence[str], together: int = 1) -> Iterator[Append]:
    """Give a function that appends rows to a tab-separated file, which starts with its header.

    Rows that belong together count as one: where a kill left some of so many without the others, they are removed. The
    caller sees to it that no other process writes the file: see `locked`.
    """
    whole = sum(map(len, _whole(file, together)))
    with file.open("ab", buffering=0) as stream:
        size = stream.truncate(whole)

        def append(rows: Iterable[Sequence[str]]) -> None:
            nonlocal size
            text = memoryview("".join(map(line_of, rows)).encode())
            try:
                written = 0
                while written < len(text):
                    written += stream.write(text[written:])
                os.fsync(stream.fileno())
            except OSError:
                stream.truncate(size)
                raise
            size += len(text)

        if not size:
            append([header])
        yield append


def whole_lines(file: Path, together: int = 1) -> list[str]:
    """Return the header and the whole rows of a file, as `appending` would leave them; none where there is no file."""
    return [line.decode(errors="replace").rstrip("\r\n") for line in _whole(file, together)]


def _whole(file: Path, together: int) -> list[bytes]:
    check_regular(file)
    try:
        lines = file.read_bytes().splitlines(keepends=True)
    except FileNotFoundError:  # another process may just have put parts together
        return []
    if lines and not lines[-1].endswith(b"\n"):
        lines.pop()
    rows = max(0, len(lines) - 1)
    return lines[: len(lines) - rows % together]


def line_of(fields: Sequence[str]) -> str:
    """Return one line of a tab-separated file. Fields are numbers and names: nothing that would need quotes."""
    return "\t".join(fields) + "\n"
