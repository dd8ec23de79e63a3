"""`srs-allocate`: points and upper bounds in, radii of balls that do not overlap out. Loads no PyTorch."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from srs.commands._errors import one_line_errors, parse

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

Order = Literal["ascending", "descending", "arrival"]


@dataclass(frozen=True)
class AllocateSettings:
    """What `srs-allocate` can be told."""

    points: Annotated[str | None, tyro.conf.Positional, tyro.conf.arg(metavar="[POINTS]")] = None
    """Points x_j: an array (n, d), or images (n, ...) to be flattened. With --logs: the whole test set, image idx in
    row idx, pixels in [0, 1] or 8-bit."""
    radii: Annotated[str | None, tyro.conf.Positional, tyro.conf.arg(metavar="[R]")] = None
    """Upper bounds R_j: an array (n,), finite and >= 0. Default: the array R or radii beside the points."""
    out: Path | None = None
    """File for the result; with --logs a folder. Default: allocation.npz, or the folder allocation."""
    overwrite: bool = False
    """Replace what --out names."""
    method: Literal["lp", "matching", "greedy", "max-min", "auto"] = "lp"
    """lp: the optimum of Eq. 10, with a proven bound. matching: the same for equal weights, much faster.
    greedy: Eq. 11, one ball after the other. max-min: the fairest radii, smallest first. auto: matching or lp, and the
    status says why."""
    order: Order | None = None
    """Order of greedy: by degree in the overlap graph, or as the points arrive. Default: ascending."""
    groups: Annotated[tuple[str, ...], tyro.conf.arg(metavar="FILE ...")] = ()
    """Files of labels (n,): points that share a label in any of them may overlap. Default: every pair conflicts."""
    weights: Annotated[str | None, tyro.conf.arg(metavar="FILE")] = None
    """File of weights (n,) of the radii in the objective. Default: all 1."""
    reserve: bool = False
    """greedy leaves every later ball half of what it could have: at least half of the optimum, in any order."""
    solver: Literal["highs", "cvxpy"] | None = None
    """Solver of lp. Default: highs."""
    time_limit: Annotated[float | None, tyro.conf.arg(metavar="SECONDS")] = None
    """Seconds for the solver; when they are over, the best radii at hand are used, with a warning."""
    search: Literal["auto", "faiss", "blocks", "tree"] = "auto"
    """How pairs that overlap are found; the result is the same. faiss: FAISS's range search of a flat index. blocks:
    matrix products. tree: k-d trees, slow in many dimensions. auto: what is likely to be fastest. Indexes that may miss
    a pair (IVF, HNSW, PQ, float16) are not offered."""
    parallel: int | str | None = None
    """Share the work out among so many processes (-1: all), or name a backend of joblib that is set up."""
    compare: bool = False
    """Also print a table of lp, the greedy orders, and the sum of R that ignores overlaps."""
    verify: bool = False
    """Check the result pair by pair with code that shares nothing with the solver."""
    logs: Annotated[tuple[Path, ...], tyro.conf.arg(metavar="FILE ...")] = ()
    """Certification logs, one for each noise level, of the same images."""
    sigmas: Annotated[tuple[float, ...], tyro.conf.arg(metavar="SIGMA ...")] = ()
    """Noise level sigma of each log, in order. Default: read off the names, as in NOISE_0.25.tsv."""
    dataset: str | None = None
    """Whose test images the logs are about: mnist, cifar10, digits or imagefolder:PATH."""
    data_dir: Path = Path("data")
    """Folder that holds MNIST/raw or cifar-10-batches-py."""
    image_size: int | None = None
    """Side in pixels that images of a folder are scaled and cropped to."""
    image_order: Literal["sorted", "class"] = "sorted"
    """What idx means in a folder. sorted: the place in the list of all files, by class, then name. class: the k-th
    image of a class in the logs is the k-th file of its class."""
    rule: Literal["max-radius", "anchor"] = "max-radius"
    """What chooses each image's level from its certificates. max-radius: the largest radius (Eq. 7). anchor: the same,
    among levels that agree in class with the smallest that certifies one."""
    rounding: Literal["half", "unit", "none"] = "half"
    """What is taken off printed radii, in units of their last digit: they were rounded, half of them up."""
    n: int | None = None
    """Estimation samples per image behind the logs. With --alpha, votes are recovered from the radii, and the level's
    choice and class groups get the confidence they need."""
    alpha: float | None = None
    """Failure probability per image behind the logs."""
    overlap: Literal["paper", "sigma", "joint", "class"] | None = None
    """Which regions must not overlap. paper: any two. sigma: two of different sigma. joint: the same, sigma chosen
    together with the radii. class: two of different sigma and class (needs --n and --alpha). Default: paper."""


def main() -> None:
    """Run the command; exit code 2 and one line on stderr where the input cannot be used."""
    settings = parse(AllocateSettings, "srs-allocate", _DESCRIPTION)
    with one_line_errors("srs-allocate"):
        if settings.logs:
            from srs.commands._allocate_logs import allocate_logs

            allocate_logs(settings)
        else:
            allocate(settings)


def allocate(settings: AllocateSettings) -> None:
    """Read, allocate, write, print."""
    from rich.console import Console

    from regions import overlap_graph, verify
    from regions.files import write_arrays
    from srs.commands._console import console

    _check_without_logs(settings)
    out = _check_out(settings)
    points, R, groups, weights = _read(settings)
    errors = Console(stderr=True)
    with _progress(errors) as bars:
        task = bars.add_task("searching for overlaps", total=None)
        began = time.perf_counter()
        graph = overlap_graph(
            points,
            R,
            groups=groups,
            search=settings.search,
            parallel=settings.parallel,
            progress=lambda _, done, total: bars.update(task, completed=done, total=total),
        )
        seconds = time.perf_counter() - began
        bars.update(task, visible=False)
        options = {name: getattr(settings, name) for name in ("order", "reserve", "solver", "time_limit")}
        if settings.method in ("lp", "matching", "auto"):
            options["parallel"] = settings.parallel
        allocation = _solve(bars, graph, weights, settings.method, **options)
        others = _others(bars, graph, weights, allocation, settings) if settings.compare else []
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
    screen.print(_summary(allocation, seconds))
    if others:
        screen.print(_comparison([allocation, *others], weights))
    if checked is not None:
        screen.print(f"verified: {checked.status}")
    screen.print(f"written to {out}", soft_wrap=True)
    if checked is not None and not checked:
        raise AssertionError(f"{checked.status}; please report this")


def _check_without_logs(settings: AllocateSettings) -> None:
    if settings.points is None:
        raise ValueError("name the file of the points, or certification logs with --logs")
    names = [field.name for field in fields(settings)]
    for field in fields(settings)[names.index("logs") :]:
        value = getattr(settings, field.name)
        if value != field.default:
            raise ValueError(
                f"--{field.name.replace('_', '-')} {value}: is about certification logs; name them with --logs"
            )


def _check_out(settings: AllocateSettings) -> Path:
    out = settings.out or Path("allocation.npz")
    if out.suffix != ".npz":
        raise ValueError(f"--out {out}: the result is an .npz file; name one")
    if out.exists() and not settings.overwrite:
        raise ValueError(f"--out {out}: exists already; name another file, or replace it with --overwrite")
    if not out.absolute().parent.is_dir():
        raise ValueError(f"--out {out}: there is no folder {out.absolute().parent}; make it first")
    return out


def _read(settings: AllocateSettings) -> tuple[np.ndarray, np.ndarray, list[np.ndarray] | None, np.ndarray | None]:
    from srs.arrays import has_array, read_array

    assert settings.points is not None
    bounds = ("R", "radii")
    if settings.radii is None and not has_array(settings.points, bounds):
        raise ValueError(
            f"{settings.points} holds no array R: name the file of the upper bounds after that of the points"
        )
    points = read_array(settings.points, ("points", "images"))
    R = read_array(settings.radii or settings.points, bounds)
    groups = [read_array(source, ("groups", "sigma", "labels")) for source in settings.groups]
    weights = None if settings.weights is None else read_array(settings.weights, ("weights",))
    return points, R, groups or None, weights


def _progress(console: Console) -> Progress:
    """Bars that vanish when done: nothing of them is left in a log."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn()
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


def _solve(
    bars: Progress,
    graph: OverlapGraph,
    weights: np.ndarray | None,
    method: str,
    **options: Any,
) -> Allocation:
    import warnings

    from regions import allocate_graph

    task = bars.add_task(f"allocating by {options.get('order') or ''} {method}", total=None)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        allocation = allocate_graph(graph, method, weights=weights, **options)
    bars.update(task, visible=False)
    for warning in caught:
        sys.stderr.write(f"srs-allocate: warning: {warning.message}\n")
    return allocation


def _others(
    bars: Progress, graph: OverlapGraph, weights: np.ndarray | None, chosen: Allocation, settings: AllocateSettings
) -> list[Allocation]:
    """The methods of the comparison that are not the chosen one."""
    variants: list[dict[str, Any]] = [{"method": "lp", "solver": settings.solver, "time_limit": settings.time_limit}]
    variants += [{"method": "greedy", "order": order} for order in ("ascending", "descending", "arrival")]
    if settings.method == "lp":
        variants = variants[1:]
    elif settings.method == "greedy" and not settings.reserve:
        variants = [v for v in variants if v.get("order") != (settings.order or "ascending")]
    return [_solve(bars, graph, weights, **variant) for variant in variants]


def _summary(allocation: Allocation, seconds: float) -> Table:
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
        ("edges", f"{graph.n_edges:,}"),
        ("components", f"{graph.n_components:,}"),
        ("largest degree", f"{graph.degree.max(initial=0):,}"),
        ("method", allocation.method),
        ("objective", significant(allocation.objective, ROUND_FLOOR)),
        ("upper bound", "unknown" if bound is None else significant(bound, ROUND_CEILING)),
        ("gap", "unknown" if gap is None else f"{gap:.1e}"),
        ("seconds", f"{seconds:.2f} search, {allocation.stats['seconds_allocate']:.2f} allocation"),
        ("status", allocation.status),
    ):
        table.add_row(name, value)
    return table


def _comparison(allocations: list[Allocation], weights: np.ndarray | None) -> Table:
    """One row a method, best first, below the sum of R."""
    from decimal import ROUND_CEILING, ROUND_FLOOR

    import numpy as np
    from rich.table import Table

    from srs.report.numbers import significant

    R = allocations[0].graph.R
    w = np.ones(R.size) if weights is None else weights
    most = float(w @ R)
    table = Table(title="weighted sums of radii" if weights is not None else "sums of radii")
    table.add_column("method")
    for name in ("sum", "share of sum of R", "upper bound", "gap", "empty balls", "seconds"):
        table.add_column(name, justify="right")
    overlapping = (
        "overlapping (r = R, not sound)",
        f"{most:.2f}",
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
            f"{allocation.objective / most:.2%}" if most else "",
            "" if bound is None else significant(bound, ROUND_CEILING, 7),
            "" if gap is None else f"{gap:.1e}",
            f"{np.count_nonzero(allocation.radii == 0)}",
            f"{allocation.stats['seconds_allocate']:.3f}",
        )
    return table


def _nan(value: float | None) -> float:
    return float("nan") if value is None else value
