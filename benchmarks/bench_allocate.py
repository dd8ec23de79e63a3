"""Eq. 10 on overlap graphs: `regions.allocate_graph` against SciPy's `linprog` and against cvxpy.

SRS_DATA=... python benchmarks/bench_allocate.py [--repeat 5]

SciPy's `linprog(method="highs")` calls the same solver, so the differences are what is given to it and how. It runs on
all rows (one for every edge: the program as the paper states it) and on the rows that the bound r_i <= distance to the
nearest neighbour leaves, which is the reduction that `regions` makes. Building the sparse matrix is timed, and also
reported apart.
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from _common import (
    Describe,
    Row,
    Run,
    apart,
    contest,
    data_folder,
    load,
    markdown_table,
    ratio,
    spread,
    write_markdown,
    write_rows,
)
from scipy.optimize import linprog
from scipy.sparse import csr_array

import regions

OURS = "regions, LP"
MATCHING = "regions, matching"
CVXPY = 'regions, LP, solver="cvxpy"'
SCIPY = "linprog, all rows"
SCIPY_REDUCED = "linprog, reduced rows"
ORDERS = ("ascending", "descending", "arrival")

# name: points, clusters, coordinates, width of a cluster, largest R; the last is set to reach the number of edges
CLUSTERED = {
    "clustered 5,000": (5_000, 50, 8, 0.05, 0.335),
    "clustered 50,000": (50_000, 500, 8, 0.05, 0.1174),
}
SEED = 20260101


def points_and_bounds(instance: str) -> tuple[np.ndarray, np.ndarray]:
    """Real images with their certified bounds, or clusters from a fixed seed."""
    if instance not in CLUSTERED:
        points, bounds = load(*instance.split())
        return points, bounds.R
    n, clusters, d, width, largest = CLUSTERED[instance]
    rng = np.random.default_rng(SEED)
    centres = rng.random((clusters, d))
    points = centres[rng.integers(clusters, size=n)] + width * rng.standard_normal((n, d))
    return points, largest * rng.uniform(0.2, 1.0, n)


def store_graph(instance: str, path: str) -> None:
    """Search for the overlap graph once, for all contenders."""
    graph = regions.overlap_graph(*points_and_bounds(instance))
    np.savez(path, R=graph.R, i=graph.i, j=graph.j, distance=graph.distance, distance_error=graph.distance_error)


def stored_graph(path: str) -> regions.OverlapGraph:
    """Read what `store_graph` wrote."""
    with np.load(path) as file:
        arrays = dict(file)
    return regions.OverlapGraph(**{**arrays, "distance_error": float(arrays["distance_error"])})


def prepare_ours(path: str, options: Row) -> tuple[Run, Describe]:
    """Load the graph for one method of this project."""
    graph = stored_graph(path)

    def run() -> regions.Allocation:
        return regions.allocate_graph(replace(graph), **options)  # a copy: degrees and components are computed anew

    def describe(allocation: regions.Allocation) -> Row:
        stats = {key: value for key, value in allocation.stats.items() if key in ("rows", "seconds_solve")}
        return {
            "objective": allocation.objective,
            "upper_bound": allocation.upper_bound,
            "edges": graph.n_edges,
            "rows": stats.get("rows", graph.n_edges),
            "seconds_solve": stats.get("seconds_solve"),
            "seconds_build": None,
        }

    return run, describe


def prepare_scipy(path: str, reduced: bool) -> tuple[Run, Describe]:
    """Load the graph for SciPy's linprog on all rows, or on those that nearest neighbours leave."""
    graph = stored_graph(path)

    def run() -> tuple[Any, int, float, float]:
        began = time.perf_counter()
        i, j, distance, upper = graph.i, graph.j, graph.distance, graph.R
        if reduced:
            upper = upper.copy()
            np.minimum.at(upper, i, distance)
            np.minimum.at(upper, j, distance)
            rows = upper[i] + upper[j] > distance
            i, j, distance = i[rows], j[rows], distance[rows]
        m = i.size
        ends = np.column_stack([i, j]).ravel()
        matrix = csr_array((np.ones(2 * m), ends, np.arange(0, 2 * m + 1, 2)), shape=(m, graph.n))
        bounds = np.column_stack([np.zeros(graph.n), upper])
        built = time.perf_counter()
        result = linprog(-np.ones(graph.n), A_ub=matrix, b_ub=distance, bounds=bounds, method="highs")
        return result, m, built - began, time.perf_counter() - built

    def describe(answer: tuple[Any, int, float, float]) -> Row:
        result, m, build, solve = answer
        if not result.success:
            raise RuntimeError(f"linprog failed: {result.message}")
        return {
            "objective": float(-result.fun),
            "upper_bound": None,
            "edges": graph.n_edges,
            "rows": m,
            "seconds_solve": solve,
            "seconds_build": build,
        }

    return run, describe


def run_instance(instance: str, repeat: int) -> list[Row]:
    """All contenders on one instance."""
    with tempfile.TemporaryDirectory() as folder:
        graph = str(Path(folder) / "graph.npz")
        apart(store_graph, instance, graph)
        contenders: dict[str, Any] = {
            OURS: (prepare_ours, (graph, {"method": "lp"})),
            MATCHING: (prepare_ours, (graph, {"method": "matching"})),
            SCIPY: (prepare_scipy, (graph, False)),
            SCIPY_REDUCED: (prepare_scipy, (graph, True)),
            CVXPY: (prepare_ours, (graph, {"method": "lp", "solver": "cvxpy"})),
        }
        contenders |= {
            f"regions, greedy {order}": (prepare_ours, (graph, {"method": "greedy", "order": order}))
            for order in ORDERS
        }
        reserved = {"method": "greedy", "order": "ascending", "reserve": True}
        contenders["regions, greedy ascending with reserve"] = (prepare_ours, (graph, reserved))
        measured = contest(contenders, repeat)
    optimum = measured[OURS]["answer"]["objective"]
    for name in (MATCHING, SCIPY, SCIPY_REDUCED, CVXPY):
        objective = measured[name]["answer"]["objective"]
        if not math.isclose(objective, optimum, rel_tol=1e-9):
            raise SystemExit(f"{instance}: {name} found {objective}, {OURS} found {optimum}")
    return [
        {
            "benchmark": "allocate_graph",
            "instance": instance,
            "contender": name,
            **row,
            "spread": spread(row["seconds"]),
            "times_ours": ratio(row, measured[OURS]),
            "times_matching": ratio(row, measured[MATCHING]),
        }
        for name, row in measured.items()
    ]


def main() -> None:
    """Run all instances and write the rows and the table."""
    instances = ("mnist catrs", "cifar10 catrs", *CLUSTERED)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=5, help="timed rounds (default: 5)")
    parser.add_argument("--instances", nargs="+", default=instances, choices=instances)
    given = parser.parse_args()
    if set(given.instances) - set(CLUSTERED):
        data_folder()  # complain before any work
    rows = [row for instance in given.instances for row in run_instance(instance, given.repeat)]
    write_rows("allocate", rows)
    write_markdown("allocate", "Allocation", [table(rows), NOTE])


NOTE = f"""Contenders take turns, each in a process of its own; the overlap graph is given. Seconds: median (smallest
to largest) of the timed rounds, after one round of warm-up. "Build": sparse matrix and bounds for `linprog`, part of
its seconds. "Over LP" and "over matching": median over the median of `{OURS}` or `{MATCHING}`, and the extremes of
the ratios of single rounds.
`regions` also proves its answer: its seconds include the dual bound and the repair to strict feasibility.
All contenders but greedy agree on the optimum to a relative 1e-9. Peak memory is that of the whole process, libraries
and numba's compiler included. Clustered instances: normal clusters around uniform centres, from seed {SEED}.
"""


def table(rows: list[Row]) -> str:
    """One line for every instance and contender."""
    header = [
        "instance",
        "contender",
        "edges",
        "rows",
        "objective",
        "seconds",
        "build, s",
        "over LP",
        "over matching",
        "MB",
    ]
    lines = []
    for row in rows:
        answer, seconds = row["answer"], row["spread"]
        over = [row[key] for key in ("times_ours", "times_matching")]
        digits = 3 if seconds["median"] < 1 else 2
        lines.append(
            [
                row["instance"],
                row["contender"],
                f"{answer['edges']:,}",
                "" if "greedy" in row["contender"] else f"{answer['rows']:,}",
                f"{answer['objective']:,.2f}",
                f"{seconds['median']:.{digits}f} ({seconds['min']:.{digits}f} to {seconds['max']:.{digits}f})",
                "" if answer["seconds_build"] is None else f"{answer['seconds_build']:.3f}",
                *(f"{times['of_medians']:.2f} ({times['min']:.2f} to {times['max']:.2f})" for times in over),
                f"{row['peak_memory_mb']:,.0f}",
            ]
        )
    return markdown_table(header, lines, words=2)


if __name__ == "__main__":
    main()
