"""How every command warns: one line on stderr, as it happens."""

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def one_line_warnings(command: str) -> Iterator[None]:
    """Turn warnings into `command: warning: message` on stderr."""

    def show(message: Warning | str, *rest: object, **named: object) -> None:
        sys.stderr.write(f"{command}: warning: {' '.join(str(message).split())}\n")

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield
