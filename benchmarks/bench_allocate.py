"""Eq. 10 side by side: our matching and LP against SciPy, cvxpy, OR-tools and lapx, on real and on hard instances.

SRS_DATA=... python benchmarks/bench_allocate.py [--repeat 5] [--limit 60] [--instances NAME ...]

Contenders take turns, each in a process of its own, on the same overlap graph; on the two large instances they run one
after the other, once after a warm-up, so that not all are in memory at once. A call that takes longer than the limit is
given up. OR-tools and lapx take part where they are installed (`pip install -e ".[bench]"`).
"""

from __future__ import annotations

import argparse
import math
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from _common import (
    DOCS,
    Row,
    apart,
    contest,
    data_folder,
    markdown_table,
    ratio,
    spread,
    write_markdown,
    write_rows,
)
from _contenders import (
    prepare_assignment,
    prepare_cvxpy,
    prepare_end_to_end,
    prepare_flat,
    prepare_lapmod,
    prepare_linprog,
    prepare_ortools,
    prepare_ours,
)
from _instances import INSTANCES, LARGE, REAL, SEED, store_graph, stored_graph
from _plots import plot_allocation

MATCHING = "regions, matching"
# name: (library, prepare, arguments after the graph)
CONTENDERS: dict[str, tuple[str, Any, tuple[Any, ...]]] = {
    MATCHING: ("regions", prepare_ours, ({"method": "matching"},)),
    "regions, LP": ("regions", prepare_ours, ({"method": "lp"},)),
    "regions, greedy": ("regions", prepare_ours, ({"method": "greedy"},)),
    "regions, greedy with reserve": ("regions", prepare_ours, ({"method": "greedy", "reserve": True},)),
    "linprog, all rows": ("scipy", prepare_linprog, (False,)),
    "linprog, reduced rows": ("scipy", prepare_linprog, (True,)),
    "cvxpy, HiGHS": ("cvxpy", prepare_cvxpy, ("HIGHS",)),
    "cvxpy, Clarabel": ("clarabel", prepare_cvxpy, ("CLARABEL",)),
    "OR-tools, GLOP": ("ortools", prepare_ortools, ("glop",)),
    "OR-tools, PDLP": ("ortools", prepare_ortools, ("pdlp",)),
    "OR-tools, assignment": ("ortools", prepare_assignment, ()),
    "lapx, lapmod": ("lap", prepare_lapmod, ()),
}
END_TO_END, FLAT = "regions.allocate, matching", "FAISS flat search + linprog"


def run_instance(instance: str, repeat: int, limit: float) -> list[Row]:
    """All contenders on one instance."""
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "graph.npz")
        apart(store_graph, instance, path)
        graph = stored_graph(path)
        sizes = {"instance": instance, "points": graph.n, "edges": graph.n_edges}
        del graph
        present = {
            name: (prepare, (path, *more))
            for name, (library, prepare, more) in CONTENDERS.items()
            if find_spec(library) is not None
        }
        if instance in LARGE:
            measured: dict[str, Row] = {}
            for name, contender in present.items():
                measured |= contest({name: contender}, 1, limit)
        else:
            measured = contest(present, repeat, limit)
    ours = measured[MATCHING]
    if "failed" in ours:
        raise SystemExit(f"{instance}: {MATCHING} {ours['failed']}: raise --limit")
    if not math.isclose(ours["answer"]["objective"], ours["answer"]["upper_bound"], rel_tol=1e-9):
        raise SystemExit(f"{instance}: {MATCHING} does not prove its optimum: {ours['answer']}")
    for name in CONTENDERS:
        measured.setdefault(name, {"failed": "not installed"})
    return [compared("allocate_graph", sizes, name, measured[name], ours) for name in CONTENDERS]


def run_end_to_end(instance: str, repeat: int, limit: float) -> list[Row]:
    """Search included: from points and bounds to radii."""
    contenders = {END_TO_END: (prepare_end_to_end, (instance,)), FLAT: (prepare_flat, (instance,))}
    measured = contest(contenders, repeat, limit)
    return [
        compared("allocate", {"instance": instance}, name, row, measured[END_TO_END]) for name, row in measured.items()
    ]


def compared(benchmark: str, sizes: Row, name: str, row: Row, ours: Row) -> Row:
    """A row for the file; `error`: how far the objective is from our proven optimum, relative."""
    more: Row = {}
    if "failed" not in row:
        optimum = ours["answer"]["objective"]
        more = {
            "spread": spread(row["seconds"]),
            "times_matching": ratio(row, ours),
            "error": (row["answer"]["objective"] - optimum) / optimum,
        }
    return {"benchmark": benchmark, **sizes, "contender": name, **row, **more}


def main() -> None:
    """Run all instances and write the rows, the tables and the plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=5, help="timed rounds (default: 5)")
    parser.add_argument("--limit", type=float, default=60, help="seconds for one call (default: 60)")
    parser.add_argument("--instances", nargs="+", default=INSTANCES, choices=INSTANCES)
    given = parser.parse_args()
    real = [instance for instance in given.instances if instance in REAL]
    if real:
        data_folder()  # complain before any work
    rows: list[Row] = []
    for instance in given.instances:
        rows += run_instance(instance, given.repeat, given.limit)
        print(instance, "done", flush=True)
    for instance in real:
        rows += run_end_to_end(instance, given.repeat, given.limit)
    write_rows("allocation", rows)
    plot_allocation(rows, given.limit, DOCS / "allocation.png")
    write_markdown("allocation", "Allocation", [NOTE, *tables(rows), *([WHOLE, whole(rows)] if real else [])], DOCS)


NOTE = f"""Contenders get the same overlap graph. Seconds: median (smallest to largest) of the timed rounds, after one
round of warm-up. "Over matching": median over the median of `{MATCHING}`, and the extremes of the ratios of single
rounds. "Error": objective against the optimum that `{MATCHING}` proves, relative; positive where tolerances let radii
overlap. `regions` also proves its answer and repairs it to strict feasibility: its seconds include both. lapx and
OR-tools' assignment solve the double cover of Eq. M6 on reduced rows and end with a matching: the radii would have to
be recovered. OR-tools' costs are rounded to integers that cannot overflow. Peak memory is that of the whole process,
libraries and numba's compiler included. Random instances: seed {SEED}.

![Seconds against the number of edges, both logarithmic, one line for each contender.](allocation.png)

*Hollow: did not finish within the limit.*
"""
WHOLE = f"""## Search included

From points and bounds to radii: `{END_TO_END}` with search, bound and certificate, against one FAISS radius search
with twice the largest R, distances in float64, and `linprog` on all rows.
"""


def tables(rows: list[Row]) -> list[str]:
    """One table for every instance."""
    parts = []
    for instance in dict.fromkeys(row["instance"] for row in rows if row["benchmark"] == "allocate_graph"):
        these = [row for row in rows if row["instance"] == instance and row["benchmark"] == "allocate_graph"]
        title = f"## {instance}\n\n{these[0]['points']:,} points, {these[0]['edges']:,} edges.\n"
        header = ["contender", "rows", "objective", "error", "seconds", "over matching", "MB"]
        parts.append(f"{title}\n{markdown_table(header, [line(row) for row in these])}")
    return parts


def whole(rows: list[Row]) -> str:
    """The table of `run_end_to_end`."""
    header = ["instance", "contender", "rows", "objective", "error", "seconds", "over ours", "MB"]
    lines = [[row["instance"], *line(row)] for row in rows if row["benchmark"] == "allocate"]
    return markdown_table(header, lines, words=2)


def line(row: Row) -> list[str]:
    """One contender in words and numbers."""
    if "failed" in row:
        return [row["contender"], "", "", "", row["failed"], "", ""]
    seconds, over, answer = row["spread"], row["times_matching"], row["answer"]
    digits = 3 if seconds["median"] < 1 else 2
    return [
        row["contender"],
        f"{answer['rows']:,}",
        f"{answer['objective']:,.2f}",
        f"{row['error']:.0e}" if abs(row["error"]) > 1e-12 else "0",
        f"{seconds['median']:.{digits}f} ({seconds['min']:.{digits}f} to {seconds['max']:.{digits}f})",
        f"{over['of_medians']:.2f} ({over['min']:.2f} to {over['max']:.2f})",
        f"{row['peak_memory_mb']:,.0f}",
    ]


if __name__ == "__main__":
    main()
