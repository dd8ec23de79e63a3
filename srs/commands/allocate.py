"""`srs-allocate`: points and upper bounds in, radii of balls that do not overlap out. Loads no PyTorch."""

from __future__ import annotations

import math
import sys
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from srs.commands._allocate_settings import AllocateSettings
from srs.commands._cli import naming_flags, one_line_errors, one_line_news, one_line_warnings, parse, printing

if TYPE_CHECKING:
    import numpy as np
    from rich.console import Console
    from rich.progress import Progress
    from rich.table import Table

    from regions import Allocation, OverlapGraph
    from srs.point_tables import PointTable

_DESCRIPTION = """Size balls around points so that no two that conflict overlap and the sum of the radii is large.

Reads points and upper bounds R of the radii, writes the radii and prints a summary with a proven bound. Files are
tables (.csv, .tsv, .parquet), whose columns go by name, or arrays (.npy, .npz); FILE.npz:KEY names one of several
arrays. A table is written with one more column, an .npz with radii, objective, upper_bound, gap, method and status.
Radii are l2, in the units of the points.

With --logs, R comes from certification logs at several constant noise levels (idx label predict radius correct time):
each image gets a level of its own and a region, without a classifier. The images are those of --dataset, or POINTS."""

#: Names of arrays of labels.
LABELS = ("groups", "sigma", "labels")

#: Pictures that can be drawn, and most balls that are lines in them and not pixels.
PICTURES = (".svg", ".png", ".pdf")
MOST_DRAWN = 20_000

#: Overlaps for each point that are listed for all methods to share.
SHARED_EDGES = 50


@printing("srs-allocate")
def main() -> None:
    """Run the command; exit code 2 and one line on stderr where the input cannot be used."""
    settings = parse(AllocateSettings, "srs-allocate", _DESCRIPTION, args=_points_first(sys.argv[1:]))
    with (
        one_line_errors("srs-allocate"),
        one_line_warnings("srs-allocate"),
        one_line_news("srs-allocate"),
        naming_flags(AllocateSettings),
    ):
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
    from srs.commands._cli import Screen, console

    source = _check_without_logs(settings)
    out, plot = _check_out(source, settings), _check_plot(settings)
    given = _read(source, settings, out)
    points, R, groups, weights = given.points, given.R, given.groups, given.weights
    coordinates = math.prod(points.shape[1:])
    if plot is not None and coordinates != 2:
        raise ValueError(f"--plot {plot}: draws the plane, but the points have {coordinates} coordinates")
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
        options = {name: getattr(settings, name) for name in ("order", "reserve", "solver", "time_limit", "r_min")}
        if settings.method in ("lp", "matching", "auto"):
            options["parallel"] = settings.parallel
        allocation = solve(settings.method, **options)
        others = _others(solve, settings) if settings.compare else []
        if settings.verify:
            bars.add_task("verifying", total=None)
        checked = verify(points, allocation.radii, R, groups=groups, r_min=settings.r_min) if settings.verify else None
        if plot is not None:
            bars.add_task("drawing", total=None)
        _write(out, plot, given, allocation, settings)
    screen = console()
    screen.print(_summary(allocation, seconds, listed=graph is not None))
    if others:
        screen.print(_comparison([allocation, *others], R, weights))
    if checked is not None:
        screen.print(f"verified: {checked.status}")
    screen.print(f"written to {out}" + (f" and {plot}" if plot is not None else ""), soft_wrap=True)
    if checked is not None and not checked:
        raise AssertionError(f"{checked.status}; please report this")


def _check_without_logs(settings: AllocateSettings) -> str:
    """Return the file of the points; raise where there is none, or where flags are about logs."""
    if settings.points is None:
        behind = "; it stands before flags that take several names" if settings.columns or settings.groups else ""
        raise ValueError(f"name the file of the points, or certification logs with --logs{behind}")
    names = [field.name for field in fields(settings)]
    for field in fields(settings)[names.index("logs") :]:
        value = getattr(settings, field.name)
        if value != field.default:
            raise ValueError(
                f"--{field.name.replace('_', '-')} {value}: is about certification logs; name them with --logs"
            )
    return settings.points


def _check_out(source: str, settings: AllocateSettings) -> Path:
    from regions.extras import need
    from srs.point_tables import SUFFIXES, is_table

    default = Path("allocation").with_suffix(Path(source).suffix if is_table(source) else ".npz")
    out = settings.out or default
    if out.suffix != ".npz" and not is_table(out):
        raise ValueError(f"--out {out}: the result is an .npz file or a table, {', '.join(SUFFIXES)}; name one")
    if out.suffix == ".parquet":
        need("parquet", f"--out {out}")
    if out.suffix == ".npz" and settings.radius_column != AllocateSettings.radius_column:
        raise ValueError(f"--radius-column {settings.radius_column}: is about tables, but {out} holds arrays")
    _check_free("--out", out, overwrite=settings.overwrite)
    return out


def _check_plot(settings: AllocateSettings) -> Path | None:
    from regions.extras import need

    plot = settings.plot
    if plot is None:
        return None
    if plot.suffix not in PICTURES:
        raise ValueError(f"--plot {plot}: pictures are {', '.join(PICTURES)}; name one")
    need("plot", f"--plot {plot}")
    _check_free("--plot", plot, overwrite=settings.overwrite)
    return plot


def _check_free(flag: str, path: Path, *, overwrite: bool) -> None:
    if path.exists() and not overwrite:
        raise ValueError(f"{flag} {path}: exists already; name another file, or replace it with --overwrite")
    if not path.absolute().parent.is_dir():
        raise ValueError(f"{flag} {path}: there is no folder {path.absolute().parent}; make it first")


@dataclass(frozen=True)
class _Given:
    """What the files say."""

    points: np.ndarray
    R: np.ndarray
    groups: list[np.ndarray] | None
    weights: np.ndarray | None
    table: PointTable | None


def _read(source: str, settings: AllocateSettings, out: Path) -> _Given:
    from srs.arrays import has_array, read_array
    from srs.point_tables import MOST_CELLS, is_table, read_table

    if is_table(source):
        return _read_columns(read_table(Path(source)), settings, out)
    if settings.columns:
        raise ValueError(f"--columns {' '.join(settings.columns)}: is about tables, but {source} holds arrays")
    bounds = ("R", "radii")
    if settings.radii is None and not has_array(source, bounds):
        raise ValueError(f"{source} holds no array R: name the file of the upper bounds after that of the points")
    points = read_array(source, ("points", "images"))
    R = read_array(settings.radii or source, bounds)
    groups = [read_array(file, LABELS) for file in settings.groups]
    weights = None if settings.weights is None else read_array(settings.weights, ("weights",))
    if is_table(out) and points.size > MOST_CELLS:
        raise ValueError(f"--out {out}: {points.size:,} coordinates are too many for a table; name an .npz file")
    return _Given(points, R, groups or None, weights, None)


def _read_columns(table: PointTable, settings: AllocateSettings, out: Path) -> _Given:
    """What columns of the table say, and arrays where a flag names no column but a file."""
    from srs.arrays import read_array
    from srs.point_tables import is_table

    if is_table(out) and settings.radius_column in table.columns:
        raise ValueError(
            f"--radius-column {settings.radius_column}: {table.path} has such a column already; name another one"
        )

    def column(name: str) -> bool:
        return name in table.columns or Path(name.partition(":")[0]).suffix not in (".npy", ".npz")

    bound = settings.radii or next((name for name in ("R", "radii") if name in table.columns), None)
    if bound is None:
        raise ValueError(f"{table.path} has no column R: name the column of the upper bounds after the file")
    R = table.numbers(bound, signed=False) if column(bound) else read_array(bound, ("R", "radii"))
    groups = [table.labels(name) if column(name) else read_array(name, LABELS) for name in settings.groups]
    weights, name = None, settings.weights
    if name is not None:
        weights = table.numbers(name, signed=False) if column(name) else read_array(name, ("weights",))
    return _Given(table.coordinates(settings.columns), R, groups or None, weights, table)


def _write(out: Path, plot: Path | None, given: _Given, allocation: Allocation, settings: AllocateSettings) -> None:
    """Write the result, and the picture if there is to be one: both or none."""
    from regions.files import whole_file, write_arrays
    from srs.point_tables import arrays_as_table, is_table

    with ExitStack() as pictures:
        if plot is not None:
            _draw(pictures.enter_context(whole_file(plot)), plot.suffix, given, allocation)
        if is_table(out):
            table = given.table or arrays_as_table(out, given.points, given.R)
            table.write_with(out, settings.radius_column, allocation.radii)
            return
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


def _draw(path: Path, suffix: str, given: _Given, allocation: Allocation) -> None:
    """Draw the balls and their upper bounds; the same picture has the same bytes."""
    import numpy as np
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    from regions import plot

    points = np.asarray(given.points).reshape(len(given.points), -1)
    groups = given.groups[0] if given.groups and len(given.groups) == 1 else None
    width, height = np.ptp(points, axis=0) + 2 * allocation.radii.max(initial=0.0) if len(points) else (1, 1)
    figure = Figure(figsize=(8, 8 * float(np.clip(height / max(width, 1e-300), 0.3, 2))), layout="constrained")
    axes = plot(points, allocation.radii, given.R, groups=groups, ax=figure.add_subplot())
    for artist in (*axes.collections, *axes.lines):
        artist.set_rasterized(len(points) > MOST_DRAWN)
    unknown = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}, ".png": {"Software": None}}
    with rc_context({"svg.hashsalt": "srs-allocate"}):
        figure.savefig(path, format=suffix[1:], dpi=200, metadata=unknown[suffix])


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
    least = settings.r_min
    reserve = bool(least)  # plain greedy keeps no least radius
    variants: list[dict[str, Any]] = [{"method": "lp", "solver": settings.solver, "time_limit": settings.time_limit}]
    variants += [
        {"method": "greedy", "order": order, "reserve": reserve} for order in ("ascending", "descending", "arrival")
    ]
    if settings.method == "lp":
        variants = variants[1:]
    elif settings.method == "greedy" and settings.reserve == reserve:
        variants = [v for v in variants if v.get("order") != (settings.order or "ascending")]
    return [solve(**variant, r_min=least) for variant in variants]


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
