"""Where commands print their tables."""

from rich.console import Console

#: Columns of a pipe or a file, which has no width of its own: no table is folded there.
_WIDE = 1000


def console() -> Console:
    """Return a console on stdout, as wide as the terminal."""
    found = Console(highlight=False)
    if not found.is_terminal:
        found.width = _WIDE
    return found
