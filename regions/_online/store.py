"""The file behind `OnlineAllocator`: a table of regions in SQLite to which rows are only appended.

Concurrency. Write-ahead logging lets processes read while one process writes.

Damage. Each row contains a SHA-256 digest of itself and of the digest of the row before. A second table has the number
of rows and the last digest. So a flipped bit, a lost row, or another file in place of this one is detected. The digests
have no key: someone who writes a file on purpose can compute them. Therefore the file is checked before anything in it
is used. It must contain our two tables and nothing else, and only values that `insert` would accept.

Exceptions. An exception may strike at any moment, also from outside (KeyboardInterrupt, MemoryError, a signal handler).
The position in the file advances by one assignment, after the rows have been delivered. `settle` ends a transaction
that an exception left open. No function here is a generator: an interrupted generator would roll back its transaction
when it is garbage-collected, and that may happen during the next transaction.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import numpy as np
from jaxtyping import Float64, Int64

from regions._online.store_errors import damaged, in_words
from regions._validate import LARGEST, MOST_COORDINATES

APPLICATION_ID = 0x53525347  # "SRSG"
SCHEMA = 1
_PAGE = 8192  # bytes: a region of 784 coordinates fits into one page
_BLOCK = 1024  # rows read at once ...
_COORDINATES = 1 << 22  # ... or fewer, so that they have no more coordinates than this together
_LONGEST = 8 * MOST_COORDINATES + 4096  # largest size of a row in bytes

_TABLES = (
    """CREATE TABLE state (
        id INTEGER PRIMARY KEY CHECK (id = 1), dimension INTEGER NOT NULL, conflicts TEXT NOT NULL,
        regions INTEGER NOT NULL, digest BLOB NOT NULL)""",
    """CREATE TABLE regions (
        id INTEGER PRIMARY KEY, radius REAL NOT NULL CHECK (radius > 0), sigma REAL NOT NULL CHECK (sigma > 0),
        class INTEGER NOT NULL, centre BLOB NOT NULL, digest BLOB NOT NULL)""",
)  # centres are little-endian float64; ids are 1, 2, 3, ... in order of arrival
_CONTENT = (("table", "state", _TABLES[0]), ("table", "regions", _TABLES[1]))
_TYPES = (int, float, float, int, bytes)
_SUPER_JOURNAL = b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7"  # the last bytes of a journal that names another file

Result = TypeVar("Result")


@dataclass(frozen=True, eq=False)
class StoredRegions:
    """Some consecutive regions of the file."""

    centres: Float64[np.ndarray, "k d"]
    radii: Float64[np.ndarray, " k"]
    sigma: Float64[np.ndarray, " k"]
    classes: Int64[np.ndarray, " k"]


class Store:
    """One connection to the file. It remembers how many rows it has delivered, and the digest of the last one."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        dimension: int | None,
        groups: str | None,
        *,
        read_only: bool,
        synchronous: str,
        timeout: float,
    ) -> None:
        self.path = Path(path)
        self.read_only = read_only
        self._check_path(may_create=dimension is not None and not read_only)
        with in_words(self.path):
            self._connection = sqlite3.connect(
                f"file:{quote(str(self.path.absolute()))}?{self._mode()}",
                uri=True,
                timeout=timeout,
                isolation_level=None,
                check_same_thread=False,  # OnlineAllocator has a lock
            )
        try:
            with in_words(self.path):
                self._prepare(dimension, groups, synchronous, timeout)
        except BaseException:
            self._connection.close()
            raise
        self._file = self._identity()

    @property
    def count(self) -> int:
        """Number of rows delivered so far."""
        return self._position[0]

    @property
    def digest(self) -> bytes:
        """Digest of the last row delivered."""
        return self._position[1]

    def _check_path(self, *, may_create: bool) -> None:
        if self.path.is_dir():
            raise ValueError(f"{self.path} is a folder: give the path of a file")
        if not self.path.exists():
            if self.read_only:
                raise FileNotFoundError(f"{self.path} does not exist: nothing to read")
            if not may_create:
                raise ValueError(f"{self.path} does not exist: give dimension= to create it")
            if not self.path.absolute().parent.is_dir():
                raise FileNotFoundError(f"{self.path.absolute().parent} does not exist: create this folder first")
            return
        if not self.path.is_file():
            raise ValueError(f"{self.path} is no regular file: give another path")
        with open(self.path, "rb") as file:
            start = file.read(16)
        if not self.read_only and not os.access(self.path, os.W_OK):
            raise PermissionError(f"{self.path} may not be written: change its permissions, or give read_only=True")
        if start and start != b"SQLite format 3\0":
            raise ValueError(f"{self.path} is no file of regions (not SQLite): give another path")
        self._check_journal()

    def _check_journal(self) -> None:
        """Refuse a journal that names another file, which our journals never do: SQLite would delete that file."""
        journal = Path(f"{self.path}-journal")
        if journal.exists() and not journal.is_file():
            raise ValueError(f"{journal} is no regular file: remove it")
        try:
            with open(journal, "rb") as file:
                file.seek(max(0, os.fstat(file.fileno()).st_size - len(_SUPER_JOURNAL)))
                end = file.read()
        except FileNotFoundError:
            return
        if end == _SUPER_JOURNAL:
            raise ValueError(f"{journal} was not written by this program: remove it, and restore a copy of {self.path}")

    def _mode(self) -> str:
        if not self.read_only:
            return "mode=rwc"
        # Readers share an index file in the folder. If the folder may not be written and the log is empty, the file is
        # opened as one that never changes, which needs no index.
        log, folder = Path(f"{self.path}-wal"), self.path.absolute().parent
        return "mode=ro" if log.exists() or os.access(folder, os.W_OK) else "immutable=1"

    def _prepare(self, dimension: int | None, groups: str | None, synchronous: str, timeout: float) -> None:
        """Check the file, or create its tables if it is new, before it is changed or its tables are read."""
        self._connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _LONGEST)
        for pragma in ("trusted_schema = OFF", "cell_size_check = ON", f"query_only = {int(self.read_only)}"):
            self._connection.execute(f"PRAGMA {pragma}")
        if self._is_empty():
            if self.read_only or dimension is None:
                raise ValueError(f"{self.path} holds no regions yet: give dimension= to create it")
            self._connection.execute(f"PRAGMA page_size = {_PAGE}")
            self._use_wal(timeout)
            self._create(dimension, groups or "none")
        self._check_kind()
        self._check_content()
        self.dimension: int
        self.groups: str
        self.dimension, self.groups = self._row("SELECT dimension, conflicts FROM state", int, str)
        if not 1 <= self.dimension <= MOST_COORDINATES or self.groups not in ("none", "sigma"):
            raise damaged(self.path)
        if dimension not in (None, self.dimension):
            raise ValueError(f"{self.path} holds regions of {self.dimension} coordinates, not dimension = {dimension}")
        if groups not in (None, self.groups):
            raise ValueError(f"{self.path} was made with groups = {self.groups!r}, not {groups!r}: give another path")
        if not self.read_only:
            self._use_wal(timeout)
            self._connection.execute(f"PRAGMA synchronous = {synchronous}")
        self.rewind()

    def _is_empty(self) -> bool:
        """Whether the file is new, or was left empty by a process that was killed before it wrote anything."""
        application, tables = self._pragma("application_id"), "SELECT count(*) FROM sqlite_master"
        return application == 0 and self._connection.execute(tables).fetchone()[0] == 0

    def _check_kind(self) -> None:
        if self._pragma("application_id") != APPLICATION_ID:
            raise ValueError(f"{self.path} is a SQLite file of another program: give another path")
        version = self._pragma("user_version")
        if version != SCHEMA:
            raise ValueError(
                f"{self.path} has schema version {version}, and this program reads version {SCHEMA}: use the program's "
                "version that wrote the file"
            )

    def _check_content(self) -> None:
        """Refuse a file with anything that this program does not make: triggers, views, indexes, other tables."""
        found = self._connection.execute("SELECT type, name, sql FROM sqlite_master LIMIT 3").fetchall()
        foreign = [entry for entry in found if entry not in _CONTENT]
        if foreign:
            what = " ".join(str(word)[:40] for word in foreign[0][:2])
            raise ValueError(f"{self.path} holds a {what!r} that this program does not write: restore a copy")
        if len(found) != len(_CONTENT):
            raise damaged(self.path)

    def _pragma(self, name: str) -> int:
        return int(self._connection.execute(f"PRAGMA {name}").fetchone()[0])

    def _use_wal(self, timeout: float) -> None:
        """Switch to write-ahead logging. SQLite itself does not wait for other processes here, so we retry."""
        deadline = time.monotonic() + timeout
        while True:
            try:
                mode = self._connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
                break
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                    raise
                time.sleep(0.01)
        if mode != "wal":
            raise OSError(f"{self.path} lies on a file system without write-ahead logging: use a local folder")

    def _create(self, dimension: int, groups: str) -> None:
        def create() -> None:
            if not self._is_empty():  # another process was faster
                return
            for table in _TABLES:
                self._connection.execute(table)
            first = (dimension, groups, _seed(dimension, groups))
            self._connection.execute("INSERT INTO state VALUES (1, ?, ?, 0, ?)", first)
            self._connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            self._connection.execute(f"PRAGMA user_version = {SCHEMA}")

        self._within("BEGIN IMMEDIATE", create, "COMMIT")

    def _identity(self) -> tuple[int, int]:
        try:
            status = os.stat(self.path)
        except FileNotFoundError:
            raise OSError(f"{self.path} was deleted while it was open: restore it and open it again") from None
        return status.st_dev, status.st_ino

    def _check_identity(self) -> None:
        if self._identity() != self._file:
            raise OSError(f"{self.path} was replaced while it was open: open it again")

    def write(self, work: Callable[[], Result]) -> Result:
        """Call `work` while no other process can write. If it returns, all that it appended is stored; else nothing."""
        if self.read_only:
            raise PermissionError(f"{self.path} was opened with read_only=True: open it without to insert")
        self._check_identity()
        with in_words(self.path):
            return self._within("BEGIN IMMEDIATE", work, "COMMIT")

    def _within(self, begin: str, work: Callable[[], Result], end: str) -> Result:
        try:
            self._connection.execute(begin)
            result = work()
            self._connection.execute(end)
        except BaseException:
            self._roll_back()
            raise
        return result

    def _roll_back(self) -> None:
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")

    def settle(self) -> None:
        """Roll back a transaction that an exception has left open."""
        with in_words(self.path):
            self._roll_back()

    def rewind(self) -> None:
        """Go back to the beginning, so that the next `read` delivers all rows."""
        self._position = (0, _seed(self.dimension, self.groups))

    def read(self, take: Callable[[StoredRegions], None]) -> None:
        """Call `take` with blocks of the rows that any process has stored since the last call."""
        self._check_identity()
        with in_words(self.path):
            if self._state() == self._position:
                return
            if self._connection.in_transaction:
                self._read(take)
            else:
                self._within("BEGIN", lambda: self._read(take), "ROLLBACK")  # both tables as of one moment

    def _state(self) -> tuple[int, bytes]:
        count, digest = self._row("SELECT regions, digest FROM state", int, bytes)
        return count, digest

    def _row(self, query: str, *types: type) -> Any:
        row = self._connection.execute(query).fetchone()
        if row is None or any(type(value) is not kind for value, kind in zip(row, types, strict=True)):
            raise damaged(self.path)
        return row

    def _read(self, take: Callable[[StoredRegions], None]) -> None:
        state = self._state()
        query = "SELECT id, radius, sigma, class, centre, digest FROM regions WHERE id > ? ORDER BY id LIMIT ?"
        size = max(1, min(_BLOCK, _COORDINATES // self.dimension))
        while block := self._connection.execute(query, (self.count, size)).fetchall():
            rows, digest = self._checked(block)
            take(rows)
            self._position = (self.count + len(block), digest)
        if self._position != state:
            raise damaged(self.path)

    def _checked(self, block: list[tuple[Any, ...]]) -> tuple[StoredRegions, bytes]:
        """Check that these rows follow those delivered and are as they were written.

        Returns them and the digest of the last one.
        """
        centres, digest = np.empty((len(block), self.dimension)), self.digest
        for k, (*row, stored) in enumerate(block):
            if tuple(map(type, row)) != _TYPES or row[0] != self.count + k + 1 or len(row[4]) != 8 * self.dimension:
                raise damaged(self.path)
            digest = _digest(digest, *row)
            if digest != stored:
                raise damaged(self.path)
            centres[k] = np.frombuffer(row[4], "<f8")
        _, radii, sigma, classes, _, _ = zip(*block, strict=True)
        rows = StoredRegions(centres, np.array(radii), np.array(sigma), np.array(classes, dtype=np.int64))
        for values, least in ((rows.radii, 0.0), (rows.sigma, 0.0), (np.abs(centres), -1.0)):
            if not ((values > least) & (values <= LARGEST)).all():
                raise damaged(self.path)
        return rows, digest

    def append(self, centre: Float64[np.ndarray, " d"], radius: float, sigma: float, class_: int) -> int:
        """Store one region and return its index.

        This must be called inside a transaction, after all rows in the file have been read.
        """
        number, blob = self.count + 1, centre.astype("<f8").tobytes()
        digest = _digest(self.digest, number, radius, sigma, class_, blob)
        row = (number, radius, sigma, class_, blob, digest)
        self._connection.execute("INSERT INTO regions VALUES (?, ?, ?, ?, ?, ?)", row)
        self._connection.execute("UPDATE state SET regions = ?, digest = ?", (number, digest))
        return number - 1

    def close(self) -> None:
        """Close the connection. The last process to do so moves everything from the log into the file."""
        with in_words(self.path):
            self._connection.close()


def _seed(dimension: int, groups: str) -> bytes:
    return hashlib.sha256(f"srs-regions-{SCHEMA} {dimension} {groups}".encode()).digest()


def _digest(before: bytes, number: int, radius: float, sigma: float, class_: int, centre: bytes) -> bytes:
    return hashlib.sha256(before + struct.pack("<qddq", number, radius, sigma, class_) + centre).digest()
