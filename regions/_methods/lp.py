"""Eq. 10 by a linear programming solver.

What is computed.

    maximise  sum_i w_i r_i    subject to    r_i + r_j <= d_ij for every edge,    0 <= r_i <= c_i

Here c_i = min(R_i, distance to the nearest neighbour in the graph). No feasible radius is larger, and under these caps
most constraints are redundant. The remaining ones split the graph into connected components, which are solved a few at
a time, because one step of the simplex method costs more in a larger model.

Guarantee. The radii are feasible in exact arithmetic, because what the solver returns is repaired. The upper bound is
valid whatever the solver returns, because it is computed from the dual solution by weak duality (docs/mathematics.md,
Eq. M5). If a solver stops early, the best feasible radii at hand are returned, with a warning.

Cost. That of the solver; O(n + m) for everything else.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64

from regions import _workers
from regions._allocation import NEGLIGIBLE
from regions._graph import connected_components
from regions._methods import greedy, solvers
from regions._methods.bounds import competing, dual_value, nearest_caps
from regions._methods.parts import parts
from regions._methods.problem import Answer, Problem
from regions._methods.repair import fill, trim
from regions._methods.solvers import LinearProgram, Solution

_OUT_OF_TIME = "time limit reached: raise time_limit, or use method='greedy'"


@dataclass(frozen=True, eq=False)
class _Part:
    """Some connected components: their vertices and edges in the graph, and the linear program for them.

    The linear program is scaled. Its lengths are those of the graph times 2**`exponent`. Its weights are those of the
    problem divided by `weight`, the largest in the component.
    """

    vertices: Int64[np.ndarray, " p"]
    edges: Int64[np.ndarray, " q"]
    exponent: Int64[np.ndarray, " p"]
    weight: Float64[np.ndarray, " q"]
    model: LinearProgram


def solve(problem: Problem) -> Answer:
    """Optimal radii of Eq. 10. If the solver does not finish: the best feasible radii at hand, and a `warning`."""
    graph = problem.graph
    solver = problem.solver or "highs"
    weights = np.ones(graph.n) if problem.weights is None else problem.weights
    caps = nearest_caps(graph)
    radii, duals = caps.copy(), np.zeros(graph.n_edges)
    failed: list[tuple[_Part, str]] = []
    began = time.perf_counter()
    count = rows = 0
    made = _parts(problem, caps, weights, solvers.SOLVERS[solver])
    for part, solution in _solutions(solver, made, began, problem):
        radii[part.vertices] = np.ldexp(np.nan_to_num(solution.radii), -part.exponent)
        duals[part.edges] = solution.edge_duals * part.weight
        count, rows = count + 1, rows + part.edges.size
        if not solution.optimal:
            failed.append((part, solution.status))
    stats = {"rows": rows, "parts": count, "seconds_solve": time.perf_counter() - began}

    radii = fill(graph, caps, trim(graph, np.clip(radii, 0.0, caps)))
    upper_bound = dual_value(graph, weights, duals)
    method, status = f"lp ({solver})", f"optimal: proven by the dual solution of {solver}"
    warning = None
    if failed:
        status = failed[0][1]
        warning = f"{solver} stopped before the optimum: {status}"
        taken = _improve(problem, weights, radii, [part for part, _ in failed])
        method += f" on {count - len(failed)} of {count} parts, repaired on {len(failed) - taken}, greedy on {taken}"
    elif problem.gap(radii, upper_bound) > NEGLIGIBLE:
        status = f"not proven optimal: {solver} lost accuracy, see gap; rescale points that differ widely in scale"
    return Answer(radii, caps, method, status, upper_bound, stats, warning=warning)


def _parts(
    problem: Problem, caps: Float64[np.ndarray, " n"], weights: Float64[np.ndarray, " n"], rows: int | None
) -> Iterator[_Part]:
    """Yield the components that have edges, in parts of about `rows` edges, or all in one part if `rows` is None.

    Solvers have absolute tolerances, so the lengths and weights of each component are scaled to about 1. Lengths are
    scaled by powers of two, which is exact.
    """
    graph = problem.graph
    edges = competing(graph, caps)
    component = connected_components(graph.n, graph.i[edges], graph.j[edges])
    largest = np.zeros(component.max(initial=-1) + 1)
    np.maximum.at(largest, component, caps)
    exponent = -np.where(largest > 0, np.frexp(largest)[1], 0).astype(np.int64)[component]
    heaviest = np.zeros(largest.size)
    np.maximum.at(heaviest, component, weights)
    weight = np.where(heaviest > 0, heaviest, 1.0)[component]

    for v, among, i, j in parts(component, graph.i[edges], graph.j[edges], rows):
        e = edges[among]
        lengths = np.ldexp(caps[v], exponent[v]), np.ldexp(graph.distance[e], exponent[graph.i[e]])
        model = LinearProgram(weights[v] / weight[v], lengths[0], i, j, lengths[1])
        yield _Part(v, e, exponent[v], weight[graph.i[e]], model)


def _solutions(solver: str, parts: Iterator[_Part], began: float, problem: Problem) -> Iterator[tuple[_Part, Solution]]:
    """Yield every part with its solution. When a part begins, its time limit is what remains of the total."""
    waiting: deque[_Part] = deque()

    def calls() -> Iterator[_workers.Call]:
        for part in parts:
            waiting.append(part)
            limit = problem.time_limit
            left = None if limit is None else began + limit - time.perf_counter()
            yield _solve_part, (solver, part.model, left)

    for solution in _workers.results(problem.parallel, calls()):
        yield waiting.popleft(), solution


def _solve_part(solver: str, model: LinearProgram, left: float | None) -> Solution:
    if left is not None and left <= 0:
        return Solution(np.zeros(model.weights.size), np.zeros(model.i.size), False, _OUT_OF_TIME)
    return solvers.solve(solver, model, left)


def _improve(
    problem: Problem,
    weights: Float64[np.ndarray, " n"],
    radii: Float64[np.ndarray, " n"],
    failed: list[_Part],
) -> int:
    """Replace the radii of each failed part, in place, where greedy with a reserve has a larger weighted sum.

    Greedy's radii are feasible for Eq. 10, and no edge leads from one part to another, so the result is feasible too.
    Returns how many parts were replaced.
    """
    graph = problem.graph
    start = greedy.with_reserve(graph, greedy.permutation(graph.degree, "ascending"))
    taken = 0
    for part in failed:
        v = part.vertices
        if weights[v] @ start[v] >= weights[v] @ radii[v]:
            radii[v] = start[v]
            taken += 1
    return taken
