"""How a command says that it is at work: before PyTorch is there, and every half minute where no bar is drawn."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from smoothing.progress import Progress

#: Seconds between two lines.
PAUSE = 30.0


def loading(command: str) -> None:
    """Say on stderr that PyTorch is being imported, which takes seconds, unless that has been done."""
    if "torch" not in sys.modules and os.environ.get("RANK", "0") == "0":
        _write(f"{command}: loading PyTorch\n")


def _write(line: str) -> None:
    if sys.stderr is not None:
        with suppress(OSError, ValueError):  # nobody reads it: the command goes on
            sys.stderr.write(line)
            sys.stderr.flush()


class Teller:
    """Writes a line to stderr every `PAUSE` seconds that says what the command is doing.

    A context manager: the lines end with it. On a terminal stages that have a bar of their own are left to that.
    """

    def __init__(self, command: str) -> None:
        self._command, self._began = command, time.monotonic()
        self._now: str | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._repeat, daemon=True)

    def __enter__(self) -> Teller:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._ended.set()
        self._thread.join()

    @property
    def progress(self) -> bool | Progress:
        """What functions take that show how far they are: True, a bar, on terminals; `tell` elsewhere."""
        return True if sys.stderr is not None and sys.stderr.isatty() else self.tell

    def tell(self, stage: str, done: int, total: int) -> None:
        """Say from now on how far a stage is, until it is done."""
        self._now = f"{stage}, {done:,} of {total:,}" if done < total else None

    @contextmanager
    def phase(self, text: str) -> Iterator[None]:
        """Say, for as long as the context lasts, what is being done of which nobody knows how far it is."""
        before, self._now = self._now, text
        try:
            yield
        finally:
            self._now = before

    def _repeat(self) -> None:
        while not self._ended.wait(PAUSE):
            if self._now is not None:
                _write(f"{self._command}: {self._now}, after {time.monotonic() - self._began:.0f} s\n")
