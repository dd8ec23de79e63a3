"""Where commands print their tables."""

from typing import Any

from rich.console import Console
from rich.text import Text

from srs.text import visible

#: Columns of a pipe or a file, which has no width of its own: no table is folded there.
_WIDE = 1000


class Screen(Console):
    """A console that shows every text as it is: `[...]` and `:smile:` in a file's name are no markup."""

    def __init__(self, *, stderr: bool = False) -> None:
        super().__init__(highlight=False, markup=False, emoji=False, stderr=stderr)

    def render_str(self, text: str, **how: Any) -> Text:
        """Return a text of one line for the terminal, control characters as escapes."""
        return super().render_str(visible(text), **how)


def console() -> Screen:
    """Return a console on stdout, as wide as the terminal."""
    found = Screen()
    if not found.is_terminal:
        found.width = _WIDE
    return found
