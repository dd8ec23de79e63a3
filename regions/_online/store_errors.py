"""Messages for SQLite's errors: one line that names the file and the remedy."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

_WORDS: Mapping[int, tuple[type[Exception], str]] = {
    sqlite3.SQLITE_BUSY: (TimeoutError, "is in use by another process: wait for it, or raise timeout="),
    sqlite3.SQLITE_LOCKED: (TimeoutError, "is in use by another process: wait for it, or raise timeout="),
    sqlite3.SQLITE_FULL: (OSError, "cannot grow, and nothing was stored: free some disk space and try again"),
    sqlite3.SQLITE_IOERR: (
        OSError,
        "cannot be read or written, and nothing was stored: free space or check the disk",
    ),
    sqlite3.SQLITE_READONLY: (
        PermissionError,
        "may not be written: check the permissions of the file and of its folder",
    ),
    sqlite3.SQLITE_PERM: (PermissionError, "may not be opened: change its permissions"),
    sqlite3.SQLITE_CANTOPEN: (OSError, "cannot be opened: check the permissions of the file and of its folder"),
    sqlite3.SQLITE_CORRUPT: (ValueError, "is damaged: restore a copy"),
    sqlite3.SQLITE_NOTADB: (ValueError, "is damaged: restore a copy"),
}


@contextmanager
def in_words(path: Path) -> Iterator[None]:
    """Turn SQLite's errors into OSError, or into ValueError if the content of the file is wrong."""
    try:
        yield
    except sqlite3.ProgrammingError as error:  # a signal handler or another thread has closed it meanwhile
        raise ValueError(f"{path} was closed while it was in use: open it again") from error
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF
        kind, words = _WORDS.get(code, (ValueError, f"is damaged ({error}): restore a copy"))
        raise kind(f"{path} {words}") from error


def damaged(path: Path) -> ValueError:
    """The error for a file whose rows are not as they were written."""
    return ValueError(f"{path} is damaged (its regions are not as they were written): restore a copy")
