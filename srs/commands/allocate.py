"""`srs-allocate`: points and upper bounds in, radii of balls that do not overlap out. Loads no PyTorch."""

from __future__ import annotations

import sys
import time
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from srs.commands._allocate_settings import AllocateSettings
from srs.commands._cli import one_line_errors, one_line_warnings, parse, printing

if TYPE_CHECKING:
    import numpy as np
    from rich.console import Console
    from rich.progress import Progress
    from rich.table import Table

    from regions import Allocation, OverlapGraph

_DESCRIPTION = """Size balls around points so that no two that conflict overlap and the sum of the radii is large.

Reads points and upper bounds R of the radii, writes the radii with their certificate (.npz: radii, objective,
upper_bound, gap, method, status) and prints a summary. All files are .npy or .npz; FILE.npz:KEY names one array of
several. Radii are l2, in the units of the points.

With --logs, R comes from certification logs at several constant noise levels (idx label predict radius correct time):
each image gets a level of its own and a region, without a classifier. The images are those of --dataset, or POINTS."""

#: Overlaps for each point that are listed for all methods to share.
SHARED_EDGES = 50


@printing("srs-allocate")
def main() -> None:
    """Run the command; exit code 2 and one line on stderr where the input cannot be used."""
    settings = parse(AllocateSettings, "srs-allocate", _DESCRIPTION, args=_points_first(sys.argv[1:]))
    with one_line_errors("srs-allocate"), one_line_warnings("srs-allocate"):
        if settings.time_limit is not None and not 0 < settings.time_limit < float("inf"):
            raise ValueError(f"--time-limit {settings.time_limit}: must be a positive number of seconds")
        if settings.logs:
            from srs.commands._allocate_logs import allocate_logs

            allocate_logs(settings)
        else:
            allocate(settings)


def _points_first(args: list[str]) -> list[str]:
    """Put first what stands behind the numbers of a flag and is none: `--sigmas 0.25 0.5 images.npy`."""
    moved, kept, numbers = [], [], -1
    for arg in args:
        numbers = 0 if arg in ("--sigmas", "--n", "--alpha") else -1 if arg.startswith("--") else numbers
        if numbers > 0 and not _is_number(arg):
            moved.append(arg)
            continue
        numbers += numbers >= 0 and _is_number(arg)
        kept.append(arg)
    return [*moved, *kept]


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def allocate(settings: AllocateSettings) -> None:
    """Read, allocate, write, print."""
    from regions import TooManyOverlaps, overlap_graph, verify
    from regions.files import write_arrays
    from srs.commands._cli import Screen, console

    source = _check_without_logs(settings)
    out = _check_out(settings)
    points, R, groups, weights = _read(source, settings)
    with _progress(Screen(stderr=True)) as bars:
        task = bars.add_task("searching for overlaps", total=None)
        began = time.perf_counter()
        graph: OverlapGraph | None = None
        with suppress(TooManyOverlaps):  # one search serves all methods, if its result is small
            graph = overlap_graph(
                points,
                R,
                groups=groups,
                search=settings.search,
                parallel=settings.parallel,
                progress=lambda _, done, total: bars.update(task, completed=done, total=total),
                most=SHARED_EDGES * max(1000, len(points)),
            )
        solve = _Solver(bars, graph, points, R, groups, weights, settings.search)
        seconds = time.perf_counter() - began
        bars.update(task, visible=False)
        options = {name: getattr(settings, name) for name in ("order", "reserve", "solver", "time_limit")}
        if settings.method in ("lp", "matching", "auto"):
            options["parallel"] = settings.parallel
        allocation = solve(settings.method, **options)
        others = _others(solve, settings) if settings.compare else []
        if settings.verify:
            bars.add_task("verifying", total=None)
        checked = verify(points, allocation.radii, R, groups=groups) if settings.verify else None

    write_arrays(
        out,
        {
            "radii": allocation.radii,
            "objective": allocation.objective,
            "upper_bound": _nan(allocation.upper_bound),
            "gap": _nan(allocation.gap),
            "method": allocation.method,
            "status": allocation.status,
        },
    )
    screen = console()
    screen.print(_summary(allocation, seconds, listed=graph is not None))
    if others:
        screen.print(_comparison([allocation, *others], R, weights))
    if checked is not None:
        screen.print(f"verified: {checked.status}")
    screen.print(f"written to {out}", soft_wrap=True)
    if checked is not None and not checked:
        raise AssertionError(f"{checked.status}; please report this")


def _check_without_logs(settings: AllocateSettings) -> str:
    """Return the file of the points; raise where there is none, or where flags are about logs."""
    if settings.points is None:
        raise ValueError("name the file of the points, or certification logs with --logs")
    names = [field.name for field in fields(settings)]
    for field in fields(settings)[names.index("logs") :]:
        value = getattr(settings, field.name)
        if value != field.default:
            raise ValueError(
                f"--{field.name.replace('_', '-')} {value}: is about certification logs; name them with --logs"
            )
    return settings.points


def _check_out(settings: AllocateSettings) -> Path:
    out = settings.out or Path("allocation.npz")
    if out.suffix != ".npz":
        raise ValueError(f"--out {out}: the result is an .npz file; name one")
    if out.exists() and not settings.overwrite:
        raise ValueError(f"--out {out}: exists already; name another file, or replace it with --overwrite")
    if not out.absolute().parent.is_dir():
        raise ValueError(f"--out {out}: there is no folder {out.absolute().parent}; make it first")
    return out


def _read(
    source: str, settings: AllocateSettings
) -> tuple[np.ndarray, np.ndarray, list[np.ndarray] | None, np.ndarray | None]:
    from srs.arrays import has_array, read_array

    bounds = ("R", "radii")
    if settings.radii is None and not has_array(source, bounds):
        raise ValueError(f"{source} holds no array R: name the file of the upper bounds after that of the points")
    points = read_array(source, ("points", "images"))
    R = read_array(settings.radii or source, bounds)
    groups = [read_array(file, ("groups", "sigma", "labels")) for file in settings.groups]
    weights = None if settings.weights is None else read_array(settings.weights, ("weights",))
    return points, R, groups or None, weights


def _progress(console: Console) -> Progress:
    """Bars that vanish when done: nothing of them is left in a log."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn()
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


@dataclass(frozen=True)
class _Solver:
    """Allocates by any method: from the overlap graph, or from the points where that would be too large."""

    bars: Progress
    graph: OverlapGraph | None
    points: np.ndarray
    R: np.ndarray
    groups: list[np.ndarray] | None
    weights: np.ndarray | None
    search: str

    def __call__(self, method: str, **options: Any) -> Allocation:
        """Allocate, and pass warnings on in one line each."""
        import warnings

        from regions import allocate, allocate_graph

        task = self.bars.add_task(f"allocating by {options.get('order') or ''} {method}", total=None)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            if self.graph is None:
                known: dict[str, Any] = {"groups": self.groups, "weights": self.weights, "search": self.search}
                allocation = allocate(self.points, self.R, method, **known, **options)
            else:
                allocation = allocate_graph(self.graph, method, weights=self.weights, **options)
        self.bars.update(task, visible=False)
        for warning in caught:
            sys.stderr.write(f"srs-allocate: warning: {warning.message}\n")
        return allocation


def _others(solve: _Solver, settings: AllocateSettings) -> list[Allocation]:
    """The methods of the comparison that are not the chosen one."""
    variants: list[dict[str, Any]] = [{"method": "lp", "solver": settings.solver, "time_limit": settings.time_limit}]
    variants += [{"method": "greedy", "order": order} for order in ("ascending", "descending", "arrival")]
    if settings.method == "lp":
        variants = variants[1:]
    elif settings.method == "greedy" and not settings.reserve:
        variants = [v for v in variants if v.get("order") != (settings.order or "ascending")]
    return [solve(**variant) for variant in variants]


def _summary(allocation: Allocation, seconds: float, *, listed: bool) -> Table:
    """What was found. Unless all overlaps were `listed`, the graph holds those alone that constrain the radii."""
    from decimal import ROUND_CEILING, ROUND_FLOOR

    from rich.table import Table

    from srs.report.numbers import significant

    graph = allocation.graph
    bound, gap = allocation.upper_bound, allocation.gap
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in (
        ("points", f"{graph.n:,}"),
        *_sizes(graph, listed),
        ("method", allocation.method),
        ("objective", significant(allocation.objective, ROUND_FLOOR)),
        ("upper bound", "unknown" if bound is None else significant(bound, ROUND_CEILING)),
        ("gap", "unknown" if gap is None else f"{gap:.1e}"),
        ("seconds", f"{seconds:.2f} search, {allocation.stats['seconds_allocate']:.2f} allocation"),
        ("status", allocation.status),
    ):
        table.add_row(name, value)
    return table


def _sizes(graph: OverlapGraph, listed: bool) -> list[tuple[str, str]]:
    if not listed:
        return [("edges", f"too many to list; {graph.n_edges:,} decide about the radii")]
    return [
        ("edges", f"{graph.n_edges:,}"),
        ("components", f"{graph.n_components:,}"),
        ("largest degree", f"{graph.degree.max(initial=0):,}"),
    ]


def _comparison(allocations: list[Allocation], bounds: np.ndarray, weights: np.ndarray | None) -> Table:
    """One row a method, best first, below the sum of R."""
    from decimal import ROUND_CEILING, ROUND_FLOOR

    import numpy as np
    from rich.table import Table

    from srs.report.numbers import percent, significant

    R = np.asarray(bounds, dtype=np.float64)
    w = np.ones(R.size) if weights is None else weights
    most = float(w @ R)
    table = Table(title="weighted sums of radii" if weights is not None else "sums of radii")
    table.add_column("method")
    for name in ("sum", "share of sum of R", "upper bound", "gap", "empty balls", "seconds"):
        table.add_column(name, justify="right")
    overlapping = (
        "overlapping (r = R, not sound)",
        significant(most, ROUND_FLOOR, 7),
        "100.00%",
        "",
        "",
        f"{np.count_nonzero(R == 0)}",
        "",
    )
    table.add_row(*overlapping, end_section=True)
    for allocation in sorted(allocations, key=lambda a: -a.objective):
        bound, gap = allocation.upper_bound, allocation.gap
        table.add_row(
            allocation.method,
            significant(allocation.objective, ROUND_FLOOR, 7),
            f"{percent(allocation.objective / most, 2)}%" if most else "",
            "" if bound is None else significant(bound, ROUND_CEILING, 7),
            "" if gap is None else f"{gap:.1e}",
            f"{np.count_nonzero(allocation.radii == 0)}",
            f"{allocation.stats['seconds_allocate']:.3f}",
        )
    return table


def _nan(value: float | None) -> float:
    return float("nan") if value is None else value
