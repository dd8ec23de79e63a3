"""Eq. 10 as a linear program, with a dual certificate that does not trust the solver.

    maximise  sum_i w_i r_i    subject to    r_i + r_j <= d_ij for every edge,    0 <= r_i <= c_i

c_i is min(R_i, distance to the nearest neighbour in the graph): r_j >= 0 implies it, and it makes most rows redundant.
What remains falls into connected components, which are solved a few at a time: simplex steps grow with the whole model.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64

from regions import _greedy, _parallel, solvers
from regions._allocation import NEGLIGIBLE, Answer, Problem, relative_gap
from regions._bounds import competing, dual_value, nearest_caps
from regions._feasible import fill, trim
from regions._graph import connected_components
from regions.solvers import LinearProgram, Solution

_OUT_OF_TIME = "time limit reached: raise time_limit, or use method='greedy'"


@dataclass(frozen=True, eq=False)
class _Part:
    """Some connected components: their vertices and edges in the graph, and the model in units of its own.

    The model's lengths are 2**`exponent` times ours, and its weights ours divided by `weight`, the component's largest.
    """

    vertices: Int64[np.ndarray, " p"]
    edges: Int64[np.ndarray, " q"]
    exponent: Int64[np.ndarray, " p"]
    weight: Float64[np.ndarray, " q"]
    model: LinearProgram


def solve(problem: Problem) -> Answer:
    """Optimal radii of Eq. 10, or, with a `warning`, the best feasible ones at hand when the solver does not finish."""
    graph = problem.graph
    solver = problem.solver or "highs"
    weights = np.ones(graph.n) if problem.weights is None else problem.weights
    caps = nearest_caps(graph)
    radii, duals = caps.copy(), np.zeros(graph.n_edges)
    failed: list[tuple[_Part, str]] = []
    began = time.perf_counter()
    parts = rows = 0
    made = _parts(problem, caps, weights, solvers.SOLVERS[solver])
    for part, solution in _solutions(solver, made, began, problem):
        radii[part.vertices] = np.ldexp(np.nan_to_num(solution.radii), -part.exponent)
        duals[part.edges] = solution.edge_duals * part.weight
        parts, rows = parts + 1, rows + part.edges.size
        if not solution.optimal:
            failed.append((part, solution.status))
    stats = {"rows": rows, "parts": parts, "seconds_solve": time.perf_counter() - began}

    radii = fill(graph, caps, trim(graph, np.clip(radii, 0.0, caps)))
    upper_bound = dual_value(graph, weights, duals)
    method, status = f"lp ({solver})", f"optimal: proven by the dual solution of {solver}"
    warning = None
    if failed:
        status = failed[0][1]
        warning = f"{solver} stopped before the optimum: {status}"
        greedy = _improve(problem, weights, radii, [part for part, _ in failed])
        method += f" on {parts - len(failed)} of {parts} parts, repaired on {len(failed) - greedy}, greedy on {greedy}"
    elif relative_gap(problem.objective(radii), upper_bound) > NEGLIGIBLE:
        status = f"not proven optimal: {solver} lost accuracy, see gap; rescale points that differ widely in scale"
    return Answer(radii, caps, method, status, upper_bound, stats, warning=warning)


def _parts(
    problem: Problem, caps: Float64[np.ndarray, " n"], weights: Float64[np.ndarray, " n"], rows: int | None
) -> Iterator[_Part]:
    """Components that compete, in parts of about `rows` edges (None: one part), with lengths and weights of about 1.

    Solvers' tolerances are absolute, so every component has units of its own; those of length are powers of two.
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

    sizes = np.bincount(component[graph.i[edges]], minlength=largest.size)
    part = (np.cumsum(sizes) // (rows or edges.size + 1))[component]
    vertices = np.flatnonzero(sizes[component])
    vertices = vertices[np.argsort(part[vertices], kind="stable")]
    edges = edges[np.argsort(part[graph.i[edges]], kind="stable")]
    local = np.empty(graph.n, dtype=np.int64)
    vertex_part, edge_part = part[vertices], part[graph.i[edges]]
    for name in np.unique(vertex_part):
        v = vertices[slice(*np.searchsorted(vertex_part, [name, name + 1]))]
        e = edges[slice(*np.searchsorted(edge_part, [name, name + 1]))]
        local[v] = np.arange(v.size)
        i, j = graph.i[e], graph.j[e]
        lengths = np.ldexp(caps[v], exponent[v]), np.ldexp(graph.distance[e], exponent[i])
        model = LinearProgram(weights[v] / weight[v], lengths[0], local[i], local[j], lengths[1])
        yield _Part(v, e, exponent[v], weight[i], model)


def _solutions(solver: str, parts: Iterator[_Part], began: float, problem: Problem) -> Iterator[tuple[_Part, Solution]]:
    """Every part with its solution; a part that is begun has the time that is left then."""
    waiting: deque[_Part] = deque()

    def calls() -> Iterator[_parallel.Call]:
        for part in parts:
            waiting.append(part)
            limit = problem.time_limit
            left = None if limit is None else began + limit - time.perf_counter()
            yield _solve_part, (solver, part.model, left)

    for solution in _parallel.results(problem.parallel, calls()):
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
    """Give every failed part the greedy radii, in place, where these are better; returns how many took them.

    Greedy with a reserve keeps Eq. 10's constraints, and parts do not interact.
    """
    graph = problem.graph
    start = _greedy.with_reserve(graph, _greedy.permutation(graph.degree, "ascending"))
    taken = 0
    for part in failed:
        v = part.vertices
        if weights[v] @ start[v] >= weights[v] @ radii[v]:
            radii[v] = start[v]
            taken += 1
    return taken
