"""`srs-score`: any method's certificates on the same images, in one table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from srs.commands._cli import console, naming_flags, needing, one_line_errors, one_line_warnings, parse, printing
from srs.commands._whole_folder import check_free, whole_folder
from srs.score.settings import GROUPS, ScoreSettings

if TYPE_CHECKING:
    from srs.score.entries import Entry

_DESCRIPTION = """Score certification logs of any methods, and runs of srs-certify, about the same images, in one table.

Average certified radius with its interval, paired differences from the first, certified accuracy against radius, the
samples that were spent, what the radii are made of, and whether the method saw the test images beforehand. Logs of
other images are refused, and what nobody says is not guessed."""


@printing("srs-score")
@needing("certify", "srs-score")
def main() -> None:
    """Run the command; exit code 2 and one line on stderr where the input cannot be used."""
    settings = parse(ScoreSettings, "srs-score", _DESCRIPTION, groups=GROUPS)
    with one_line_errors("srs-score"), one_line_warnings("srs-score"), naming_flags(ScoreSettings):
        settings.check()

        from srs.report.svg import save  # after the check: Matplotlib and PyTorch take seconds to import
        from srs.score.entries import read_entries
        from srs.score.table import FILES, curves, score, write

        if settings.out is not None:
            check_free(settings.out, FILES, overwrite=settings.overwrite)
        entries = read_entries(settings)
        described = score(entries)
        if settings.out is not None:
            with whole_folder(settings.out, FILES, overwrite=settings.overwrite) as folder:
                write(entries, described, folder)
        if settings.plot is not None:
            save(curves(entries), settings.plot)
        _print(entries, described, settings)


def _print(entries: Mapping[str, Entry], described: Mapping[str, Any], settings: ScoreSettings) -> None:
    from srs.report.tables import TerminalTable
    from srs.score.table import CAPTION, notes, table_of

    screen, table = console(), table_of(entries, described)
    shown = TerminalTable(CAPTION, table)
    screen.print(shown)
    screen.print(f"> the others are compared with: {table.main}")
    left_out = shown.left_out(screen.width)
    screen.print(table.legend_without(left_out))
    for note in notes(entries):
        screen.print(note)
    if left_out:
        screen.print(f"no room for: {', '.join(left_out)} (a wider terminal or a pipe shows them)")
    for path in (settings.out, settings.plot):
        if path is not None:
            screen.print(f"written to {path}", soft_wrap=True)
