"""How every command fails: one line on stderr and an exit code."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def one_line_errors(command: str) -> Iterator[None]:
    """Turn bad input into `command: message` on stderr and exit code 2; an interrupt into exit code 130.

    Catches `ValueError`, `OSError` and `FloatingPointError`. Anything else is a defect and keeps its traceback.
    """
    try:
        yield
    except (ValueError, OSError, FloatingPointError) as error:
        sys.stderr.write(f"{command}: {' '.join(str(error).split())}\n")
        raise SystemExit(2) from error
    except KeyboardInterrupt as error:
        sys.stderr.write(f"\n{command}: interrupted, nothing was written\n")
        raise SystemExit(130) from error
