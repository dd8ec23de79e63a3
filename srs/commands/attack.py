"""`srs-attack`: whether G keeps what a run certified, against an adversary, and from where on it fails."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from srs.attack.settings import GROUPS, AttackSettings
from srs.commands._cli import console, naming_flags, needing, one_line_errors, one_line_warnings, parse, printing
from srs.commands._config import find_in_current_folder
from srs.commands._progress import Teller, loading
from srs.commands._whole_folder import check_free, whole_folder

if TYPE_CHECKING:
    from srs.attack.attack import Found

_DESCRIPTION = """Attack a finished run of srs-certify: look for points inside its certified balls at which G answers
another class, and for the nearest ones beyond.

Follows gradients of the smoothed classifier (Salman et al., 2019) from centres, random points and borders of regions,
and asks G at what it finds, with fresh noise. Writes attack.json, attack.tsv, and a figure of certified accuracy with
the accuracy that the attack leaves: the truth lies between them.

Exit code 0: what was found is consistent with the run's alpha. 1: it is not. 2: there is no run to attack."""

#: Most radii that are printed.
_COLUMNS = 7


@printing("srs-attack")
@needing("certify", "srs-attack")
def main() -> None:
    """Run the command; exit code 1 where the run does not keep what it certifies, 2 where there is none."""
    settings = parse(AttackSettings, "srs-attack", _DESCRIPTION, groups=GROUPS)
    with (
        one_line_errors("srs-attack"),
        one_line_warnings("srs-attack"),
        naming_flags(AttackSettings),
        Teller("srs-attack") as teller,
    ):
        settings.check()
        find_in_current_folder(settings.model, settings.arch)
        out = _out(settings)
        loading("srs-attack")

        from srs.attack.attack import attack  # after the check: PyTorch takes seconds to import
        from srs.attack.files import FILES, write

        check_free(out, FILES, overwrite=settings.overwrite)
        found = attack(settings, teller.phase)
        with teller.phase("drawing curves"), whole_folder(out, FILES, overwrite=settings.overwrite) as folder:
            write(found, folder)
        _print(found, out)
    if not found.verdict.consistent:
        raise SystemExit(1)


def _out(settings: AttackSettings) -> Path:
    run = settings.run.absolute()
    return run.with_name(f"{run.name}-attack") if settings.out is None else settings.out


def _print(found: Found, out: Path) -> None:
    from rich.table import Table

    from srs.report.numbers import percent, percent_above

    screen, verdict, curves = console(), found.verdict, found.curves()
    every = range(0, len(curves["epsilon"]), -(-len(curves["epsilon"]) // _COLUMNS))
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("accuracy (%) at l2 radius")
    for k in every:
        table.add_column(f"{curves['epsilon'][k]:.2f}", justify="right", no_wrap=True)
    lines = {"certified": ("certified", percent), "under attack, at most": ("answers_label", percent_above)}
    if curves["answers_label"] != curves["not_misled"]:
        lines["abstaining counts as safe"] = ("not_misled", percent_above)
    for name, (key, written) in lines.items():
        table.add_row(name, *(written(curves[key][k]) for k in every))
    screen.print(table)
    for line in (
        f"inside the balls: {verdict.points} points, {verdict.breaks} of another class, {verdict.undecided} not "
        f"decided, {verdict.unanswered} in no region",
        f"{verdict.sentence}",
        f"with probability at least 1 - {verdict.significance / 2:g} all predictions are right or abstain: each at "
        f"{found.alpha:.3g}; an honest run is called broken with probability at most {verdict.significance:g}",
        f"repeat with --seed {found.seed}",
        f"written to {out}",
    ):
        screen.print(line, soft_wrap=True)
    screen.print(
        f"{found.settings.run}: {'consistent with' if verdict.consistent else 'NOT consistent with'} its alpha"
    )
