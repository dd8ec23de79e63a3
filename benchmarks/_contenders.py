"""Ways to solve Eq. 10 on an overlap graph: ours, and those of other libraries, each loaded in its own process only.

Every `prepare_*` loads the graph and returns what is timed and how its answer is described. Libraries get the program
as the paper states it, one row for every edge; `linprog` also gets the rows that the bound r_i <= distance to the
nearest neighbour leaves, the reduction that `regions` makes. Assignment solvers need that bound, and get the bipartite
double cover (docs/mathematics.md, Eq. M6).
"""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module
from typing import Any

import numpy as np
from _common import Describe, Row, Run
from _instances import points_and_bounds, stored_graph

import regions


def prepare_ours(path: str, options: Row) -> tuple[Run, Describe]:
    """One method of this project; its seconds include the repair to strict feasibility and the bound."""
    graph = stored_graph(path)

    def run() -> regions.Allocation:
        return regions.allocate_graph(replace(graph), **options)  # a copy: degrees and components are computed anew

    return run, lambda a: answer(a.objective, a.stats.get("rows", graph.n_edges), upper_bound=a.upper_bound)


def answer(objective: float, rows: int, **more: Any) -> Row:
    """What every contender says."""
    return {"objective": float(objective), "rows": int(rows), **more}


def reduced(graph: regions.OverlapGraph) -> regions.OverlapGraph:
    """Bounds cut to the distance of the nearest neighbour, and the edges that are left."""
    caps = graph.R.copy()
    np.minimum.at(caps, graph.i, graph.distance)
    np.minimum.at(caps, graph.j, graph.distance)
    keep = caps[graph.i] + caps[graph.j] > graph.distance
    return replace(graph, R=caps, i=graph.i[keep], j=graph.j[keep], distance=graph.distance[keep])


def constraint_matrix(graph: regions.OverlapGraph) -> Any:
    """One row r_i + r_j for every edge."""
    from scipy.sparse import csr_array

    ends = np.column_stack([graph.i, graph.j]).ravel()
    m = graph.n_edges
    return csr_array((np.ones(2 * m), ends, np.arange(0, 2 * m + 1, 2)), shape=(m, graph.n))


def prepare_linprog(path: str, reduce: bool) -> tuple[Run, Describe]:
    """SciPy's `linprog(method="highs")`, which calls the same solver as our LP."""
    from scipy.optimize import linprog

    graph = stored_graph(path)

    def run() -> tuple[Any, int]:
        g = reduced(graph) if reduce else graph
        bounds: Any = np.column_stack([np.zeros(g.n), g.R])  # the stubs want a list of pairs
        cost, rows = -np.ones(g.n), constraint_matrix(g)
        return linprog(cost, A_ub=rows, b_ub=g.distance, bounds=bounds, method="highs"), g.n_edges

    return run, lambda a: answer(-a[0].fun, a[1])


def prepare_cvxpy(path: str, solver: str) -> tuple[Run, Describe]:
    """The program in cvxpy, as one writes it."""
    import cvxpy as cp

    graph = stored_graph(path)

    def run() -> float:
        r = cp.Variable(graph.n)
        disjoint = r[graph.i] + r[graph.j] <= graph.distance
        problem = cp.Problem(cp.Maximize(cp.sum(r)), [disjoint, r >= 0, r <= graph.R])  # type: ignore[attr-defined]
        return float(problem.solve(solver=solver))  # type: ignore[no-untyped-call]

    return run, lambda a: answer(a, graph.n_edges)


def prepare_ortools(path: str, solver: str) -> tuple[Run, Describe]:
    """OR-tools' linear solvers through its array interface, with their default tolerances."""
    from scipy.sparse import csr_matrix

    helper: Any = import_module("ortools.linear_solver.python.model_builder_helper")  # its types differ by version
    g = stored_graph(path)

    def run() -> float:
        model, lp = helper.ModelBuilderHelper(), helper.ModelSolverHelper(solver)
        rows = csr_matrix(constraint_matrix(g))
        least, ones = np.full(g.n_edges, -np.inf), np.ones(g.n)
        model.fill_model_from_sparse_data(np.zeros(g.n), g.R, ones, least, g.distance, rows)
        model.set_maximize(True)
        lp.solve(model)
        if lp.status() != helper.SolveStatus.OPTIMAL:
            raise RuntimeError(f"{solver} ended with {lp.status()}")
        return float(lp.objective_value())

    return run, lambda a: answer(a, g.n_edges)


def double_cover(g: regions.OverlapGraph) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Row starts, columns and costs of the assignment problem: the edges both ways, and loops at twice the bound."""
    from scipy.sparse import coo_array

    here = np.arange(g.n)
    rows, columns = np.concatenate([g.i, g.j, here]), np.concatenate([g.j, g.i, here])
    costs = np.concatenate([g.distance, g.distance, 2 * g.R])
    matrix = coo_array((np.arange(costs.size) + 1, (rows, columns)), shape=(g.n, g.n)).tocsr()  # keeps costs of 0
    matrix.sort_indices()
    return matrix.indptr, matrix.indices, costs[matrix.data - 1]


def prepare_assignment(path: str) -> tuple[Run, Describe]:
    """OR-tools' linear assignment, on costs rounded to integers as large as it takes without overflow."""
    from ortools.graph.python import linear_sum_assignment

    graph = stored_graph(path)

    def run() -> tuple[float, int]:
        g = reduced(graph)
        start, column, cost = double_cover(g)
        scale = 2.0 ** np.floor(np.log2(2.0**60 / (g.n + 1) ** 2 / cost.max()))
        row = np.repeat(np.arange(g.n), np.diff(start))
        solver = linear_sum_assignment.SimpleLinearSumAssignment()
        solver.add_arcs_with_cost(row, column, np.round(cost * scale).astype(np.int64))
        status = solver.solve()
        if status != solver.OPTIMAL:
            raise RuntimeError(f"linear assignment ended with {status}")
        return solver.optimal_cost() / scale / 2, g.n_edges

    return run, lambda a: answer(*a)


def prepare_lapmod(path: str) -> tuple[Run, Describe]:
    """Jonker and Volgenant's method on sparse rows, by lapx: the matching, without radii."""
    import lap

    graph = stored_graph(path)

    def run() -> tuple[float, int]:
        g = reduced(graph)
        start, column, cost = double_cover(g)
        return lap.lapmod(g.n, cost, start, column)[0] / 2, g.n_edges

    return run, lambda a: answer(*a)


def prepare_end_to_end(instance: str) -> tuple[Run, Describe]:
    """`regions.allocate` by matching: search, radii, bound and certificate."""
    points, R = points_and_bounds(instance)

    def run() -> regions.Allocation:
        return regions.allocate(points, R, method="matching")

    return run, lambda a: answer(a.objective, a.stats["rows"], upper_bound=a.upper_bound)


def prepare_flat(instance: str) -> tuple[Run, Describe]:
    """What one writes first: one FAISS search with twice the largest R, float64 distances, and linprog on all rows."""
    from bench_graph import prepare_global
    from scipy.optimize import linprog

    points, R = points_and_bounds(instance)
    search, _ = prepare_global(points, R, False)

    def run() -> tuple[Any, int]:
        i, j = search()
        parts = np.array_split(np.arange(i.size), 1 + i.size // 4096)
        distance = np.concatenate([np.linalg.norm(points[i[p]] - points[j[p]], axis=1) for p in parts])
        graph = regions.OverlapGraph(R, i, j, distance, 0.0)
        bounds: Any = np.column_stack([np.zeros(R.size), R])  # the stubs want a list of pairs
        cost, rows = -np.ones(R.size), constraint_matrix(graph)
        return linprog(cost, A_ub=rows, b_ub=distance, bounds=bounds, method="highs"), i.size

    return run, lambda a: answer(-a[0].fun, a[1])
