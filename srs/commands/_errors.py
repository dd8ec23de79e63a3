"""How every command fails: one line on stderr and an exit code."""

import errno
import io
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from typing import TypeVar, cast

import tyro

Settings = TypeVar("Settings")

#: Of a disk, a quota or a file size limit.
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def parse_preset(presets: Mapping[str, tuple[str, Settings]], command: str, description: str) -> Settings:
    """Read a preset's name and what overrides it; presets are (description, settings) by name."""
    kind = tyro.extras.subcommand_type_from_defaults(
        {name: default for name, (_, default) in presets.items()},
        {name: about for name, (about, _) in presets.items()},
    )
    return parse(kind, command, description)


def parse(
    settings: type[Settings],
    command: str,
    description: str,
    *,
    default: Settings | None = None,
    args: Sequence[str] | None = None,
) -> Settings:
    """Read the command line, or these arguments, over a default; flags that cannot be used: one line, exit code 2."""
    complaint = io.StringIO()
    try:
        with redirect_stderr(complaint):
            found = tyro.cli(
                settings,
                prog=command,
                description=description,
                default=tyro.MISSING_NONPROP if default is None else default,  # None would be no preset
                args=args,
                config=(tyro.conf.FlagCreatePairsOff,),
            )
            return cast(Settings, found)
    except SystemExit as end:
        if end.code:  # tyro draws a box around several lines
            text = re.sub(r"[\u2500-\u257f]", " ", complaint.getvalue())
            sys.stderr.write(f"{command}: {' '.join(text.split())}\n")
        raise


@contextmanager
def one_line_errors(command: str, interrupted: str = "nothing was written") -> Iterator[None]:
    """Turn bad input into `command: message` on stderr and exit code 2; an interrupt into exit code 130.

    Catches `ValueError`, `OSError`, `FloatingPointError` and `MemoryError`. Anything else is a defect and keeps its
    traceback.
    """
    try:
        yield
    except (ValueError, OSError, FloatingPointError) as error:
        remedy = "; make room and try again" if getattr(error, "errno", None) in _FULL else ""
        sys.stderr.write(f"{command}: {' '.join(str(error).split())}{remedy}\n")
        raise SystemExit(2) from error
    except MemoryError as error:
        text = " ".join(str(error).split())
        sys.stderr.write(f"{command}: out of memory{': ' * bool(text)}{text}; use fewer images or a larger machine\n")
        raise SystemExit(2) from error
    except KeyboardInterrupt as error:
        sys.stderr.write(f"\n{command}: interrupted, {interrupted}\n")
        raise SystemExit(130) from error
