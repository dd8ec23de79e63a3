"""`srs-verify`: whether what a run claims follows from its rows, its images and its model."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from srs.commands._cli import naming_flags, needing, one_line_errors, one_line_warnings, parse, printing
from srs.commands._config import find_in_current_folder
from srs.commands._progress import Teller
from srs.verify.settings import VerifySettings

if TYPE_CHECKING:
    from srs.verify.findings import Findings

_DESCRIPTION = """Verify a finished run of srs-certify that may come from anybody.

Computes bounds, radii and levels anew from the rows, in arithmetic of its own; shows by an exact search that regions
keep apart; compares map, comparison and summary with the rows, the images with the data set, classifier and router with
their hashes; and draws votes again where --redraw or --all asks for it. Prints what holds, what does not and what could
not be checked. Nothing is written, and nothing in the folder is run.

Exit code 0: nothing was found that does not hold. 1: something does not. 2: there is no run to verify."""

_WORDS = {True: "holds", False: "FAILS", None: "unknown"}


@printing("srs-verify")
@needing("certify", "srs-verify")
def main() -> None:
    """Run the command; exit code 1 where something does not hold, 2 and one line where there is no run."""
    settings = parse(VerifySettings, "srs-verify", _DESCRIPTION)
    with (
        one_line_errors("srs-verify"),
        one_line_warnings("srs-verify"),
        naming_flags(VerifySettings),
        Teller("srs-verify") as teller,
    ):
        settings.check()
        find_in_current_folder(settings.model, settings.arch, settings.dataset)

        from srs.verify.verify import verify  # after the check: PyTorch takes seconds to import

        with teller.phase("checking the folder"):
            findings = verify(settings, lambda done, of: teller.tell("votes drawn again, of images", done, of))
        _print(findings, settings)
    if findings.failed:
        raise SystemExit(1)


def _print(findings: Findings, settings: VerifySettings) -> None:
    from rich.text import Text

    from srs.commands._cli import console
    from srs.text import visible

    screen = console()
    for one in findings.found:
        head = f"{_WORDS[one.holds]:<8} {one.topic:<13} "
        text = visible(f"{head}{one.text}")
        if screen.is_terminal:
            width = max(screen.width, 40)
            text = textwrap.fill(text, width, subsequent_indent=" " * len(head), break_on_hyphens=False)
        style = "bold red" if one.holds is False else "" if one.holds else "dim"
        screen.print(Text(text, style=style), soft_wrap=True)
    holds, fails, unknown = (findings.count(state) for state in (True, False, None))
    verdict = f"NOT verified: {fails} of {holds + fails} checks fail" if fails else f"all {holds} checks hold"
    screen.print(f"{settings.run}: {verdict}; {unknown} could not be made", soft_wrap=True)
