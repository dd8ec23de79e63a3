"""What the runs and logs of a report are called, by people and by files."""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path

from srs.text import visible

_MOST_OF_FOLDER = 100


def names_of(given: Sequence[tuple[str | None, Path]], taken: Iterable[str]) -> list[str]:
    """Return a name for each run: that which was given, else its folder's, with a number where that is taken."""
    used = {*taken, *(name for name, _ in given if name is not None)}
    names: list[str] = []
    for name, folder in given:
        found = name
        if found is None:
            found = base = visible(folder.absolute().name or "run")
            number = 1
            while found in used:
                number += 1
                found = f"{base}-{number}"
            used.add(found)
        names.append(found)
    return names


def folders_of(names: Sequence[str], taken: Iterable[str]) -> list[str]:
    """Return a folder for each name, of letters, digits, dots, hyphens and underscores; no two differ by case alone."""
    used, folders = {name.casefold() for name in taken}, []
    for name in names:
        plain = re.sub(r"[^\w.-]+", "-", unicodedata.normalize("NFC", name)).strip(".-")[:_MOST_OF_FOLDER]
        base = found = plain or "run"
        number = 1
        while found.casefold() in used:
            number += 1
            found = f"{base}-{number}"
        used.add(found.casefold())
        folders.append(found)
    return folders
