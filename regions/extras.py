"""What the extras of the distribution bring, and how to say in one line that one of them is missing."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterator
from importlib import metadata

_DISTRIBUTION = "srs-certify"

#: A requirement as metadata writes it: name, extras of it, and the extra of ours that it belongs to. What only some
#: platforms need, by a further condition, is not looked for.
_REQUIREMENT = re.compile(r"""([\w.-]+)\s*(?:\[([^\]]*)\])?[^;]*;\s*extra\s*==\s*["']([\w.-]+)["']""")


class MissingExtra(ImportError):  # noqa: N818 (the name says what is wrong)
    """Something was asked for that an extra of the distribution brings, and that extra is not installed."""


def need(extra: str, what: str) -> None:
    """Raise `MissingExtra`, with the command that mends it, unless all that an extra brings is installed.

    Parameters
    ----------
    extra : str
        Name of an extra, as pyproject.toml has it.
    what : str
        What needs it: begins the message.
    """
    missing = next((name for name in distributions(extra) if not _installed(name)), None)
    if missing is not None:
        remedy = f"{shlex.quote(sys.executable)} -m pip install '{_DISTRIBUTION}[{extra}]'"
        raise MissingExtra(f"{what} needs {missing}, which is not installed: {remedy}")


def distributions(extra: str) -> Iterator[str]:
    """Yield the names of the distributions that an extra of ours brings, directly or by other extras of ours."""
    for line in metadata.requires(_DISTRIBUTION) or ():
        found = _REQUIREMENT.fullmatch(line)
        if found is None or found[3] != extra:
            continue
        if found[1] == _DISTRIBUTION:
            for inner in (found[2] or "").split(","):
                yield from distributions(inner.strip())
        else:
            yield found[1]


def _installed(name: str) -> bool:
    try:
        metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return False
    return True
