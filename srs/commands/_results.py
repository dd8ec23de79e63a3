"""What commands print of results: the table, what it means, and what can be done next."""

import shlex
from collections.abc import Mapping
from decimal import ROUND_CEILING, ROUND_FLOOR
from pathlib import Path
from typing import Any

from srs.commands._cli import Screen, console
from srs.modes import MEANING, short_title
from srs.report.numbers import percent, significant
from srs.report.tables import TerminalTable, rule_table
from srs.text import visible


def print_table(summary: Mapping[str, Any], caption: str) -> Screen:
    """Print a table of rules and what its rows and columns are; return the screen."""
    screen = console()
    table = rule_table(summary, summary["main"], named=short_title)
    shown = TerminalTable(f"{caption}: certified accuracy (%) at l2 radius", table)
    screen.print(shown)
    screen.print(f"> the row to quote: {table.main}")
    left_out = shown.left_out(screen.width)
    screen.print(table.legend_without(left_out))
    screen.print(MEANING)
    if left_out:
        screen.print(f"no room for: {', '.join(left_out)} (a wider terminal or a pipe shows them)")
    return screen


def print_results(summary: Mapping[str, Any], folder: Path, *, named: str | None = None) -> None:
    """Print the results of the run in a folder, with a name that is not the folder's."""
    from srs.report.summary import remarks  # with PyTorch, which `srs-allocate` does without

    caption = str(folder) if named in (None, visible(folder.absolute().name)) else f"{named} ({folder})"
    screen = print_table(summary, caption)
    settings = summary["settings"]
    for line in (
        f"{summary['data']['images']} images, clean accuracy {percent(summary['clean_accuracy_base'])}%, "
        f"n = {settings['n']}, alpha = {summary['alpha']:g}, seed {summary['seed']}, device {summary['device']}",
        f"{summary['guarantee']}",
        *remarks(summary),
        *_router_line(summary.get("router")),
        *_regions_line(summary["allocations"].get(summary["main"])),
        "seconds: " + ", ".join(f"{stage} {value:.1f}" for stage, value in summary["seconds"].items()),
    ):
        screen.print(line)


def _router_line(router: Mapping[str, Any] | None) -> list[str]:
    if router is None:
        return []
    if router["level"] is not None:
        return [f"router: names sigma = {router['level']:g} for every input, and gets no sample and no part of alpha"]
    share = f"{router['share_of_alpha']:g} of alpha, chosen by selection samples"
    return [f"router: sigma {router['sigma']:g} of its own, {share}"]


def _regions_line(main: Mapping[str, Any] | None) -> list[str]:
    if main is None:  # a router without regions
        return []
    most = main["upper_bound"]
    bound = "no bound known" if most is None else f"at most {significant(most, ROUND_CEILING)}"
    total = significant(main["objective"], ROUND_FLOOR)
    return [f"regions: {main['edges']} overlaps, sum of radii {total} ({bound}); {main['status']}"]


def print_next(folder: Path, settings: Mapping[str, Any], *, reported: bool = False) -> None:
    """Print what can be done with the run in a folder: commands to copy."""
    run, own = shlex.quote(str(folder)), settings.get("model")
    code = f" --model {shlex.quote(own)}" if own else ""
    lines = [] if reported else [f"srs-report {run}"]
    lines += [f"srs-verify {run}{code}", f"srs-predict {run} IMAGE{code}"]
    screen = console()
    for number, line in enumerate(lines):
        screen.print(f"{'next:' if not number else '     '} {line}", soft_wrap=True)
