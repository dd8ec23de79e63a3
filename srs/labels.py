"""Names that a command line gives to what it lists: NAME=PATH, NAME=VALUE."""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from srs.text import visible

#: Characters of a name that is given: it has to fit a legend.
MOST = 40

Value = TypeVar("Value")


def split_name(text: str, what: str) -> tuple[str | None, Path]:
    """Split NAME=PATH; a path that holds = and exists stands for itself, as does one without =.

    Parameters
    ----------
    text : str
    what : str
        What the command line calls it, such as "LOG" or "--baseline", for messages.

    Raises
    ------
    ValueError
        Where the name is empty, long, or holds what cannot be seen, and where no path follows it.
    """
    name, equals, path = text.partition("=")
    if not equals or os.path.exists(text):
        return None, Path(text)
    said = f"{what} {visible(text)}"
    if not name or name != name.strip():
        raise ValueError(f"{said}: the name before = is empty or begins or ends with a blank; write NAME={path}")
    if len(name) > MOST:
        raise ValueError(f"{said}: the name before = has {len(name)} characters; take at most {MOST}")
    if visible(name) != name:
        raise ValueError(f"{said}: the name before = holds characters that cannot be seen; take others")
    if not path:
        raise ValueError(f"{said}: nothing follows =; write {name}=PATH")
    return name, Path(path)


def named_paths(texts: Sequence[str], what: str) -> dict[str, Path]:
    """Return paths by name: the one that is given, else the last part of the path without its suffix.

    Raises
    ------
    ValueError
        As `split_name`, and where two have one name.
    """
    found: dict[str, Path] = {}
    for text in texts:
        given, path = split_name(text, what)
        own = path.absolute()
        name = given or visible((own.name if own.is_dir() else own.stem) or what.strip("-").lower())
        if name in found:
            raise ValueError(f"{what} {visible(text)}: another one is called {name} too; name them apart by NAME=PATH")
        found[name] = path
    return found


def of_each(
    texts: Sequence[str], names: Mapping[str, object], flag: str, parse: Callable[[str], Value]
) -> dict[str, Value]:
    """Return what a flag says of each name, by NAME=VALUE, or by VALUE of all that no other one names.

    Parameters
    ----------
    texts : sequence of str
        The values of the flag.
    names : mapping
        Its keys are the names that there are.
    flag : str
    parse : callable
        Reads a value; a `ValueError` of its says what was expected.

    Raises
    ------
    ValueError
        For a name that there is not, one that is named twice, and a value that is none.
    """
    found: dict[str | None, Value] = {}
    for text in texts:
        name, equals, value = text.rpartition("=")
        key = name if equals else None
        if key is not None and key not in names:
            raise ValueError(f"{flag} {visible(text)}: nothing is called {visible(name)}; there are {', '.join(names)}")
        if key in found:
            raise ValueError(f"{flag} {visible(text)}: said twice of {'all' if key is None else name}; leave one out")
        try:
            found[key] = parse(value)
        except ValueError as error:
            raise ValueError(f"{flag} {visible(text)}: {error}") from None
    for_all = dict.fromkeys(names, found[None]) if None in found else {}
    return for_all | {name: value for name, value in found.items() if name is not None}
