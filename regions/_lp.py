"""Eq. 10 as a linear program, with a dual certificate that does not trust the solver.

    maximise  sum_i w_i r_i    subject to    r_i + r_j <= d_ij for every edge,    0 <= r_i <= c_i

c_i is min(R_i, distance to the nearest neighbour in the graph): r_j >= 0 implies it, and it makes most rows redundant.
Any y >= 0 on the edges gives the bound  sum d_ij y_ij + sum c_i max(0, w_i - sum_j y_ij): docs/mathematics.md, sec. 2.
"""

from __future__ import annotations

import math
import time
import warnings

import numpy as np
from jaxtyping import Bool, Float64, Int64

from regions import _greedy, solvers
from regions._allocation import Answer, Problem, relative_gap
from regions._feasible import fill, trim
from regions._graph import OverlapGraph, connected_components
from regions.solvers import LinearProgram, Solution

_NEGLIGIBLE = 1e-6
"""A relative gap above this is not called optimal."""


def solve(problem: Problem) -> Answer:
    """Optimal radii of Eq. 10, or, with a warning, the best feasible ones at hand when the solver does not finish."""
    graph = problem.graph
    solver = problem.solver or "highs"
    weights = np.ones(graph.n) if problem.weights is None else problem.weights
    caps = _caps(graph, graph.R, graph.distance)
    rows = caps[graph.i] + caps[graph.j] > graph.distance * (1 - 1e-15)
    scale = _scale(connected_components(graph.n, graph.i[rows], graph.j[rows]), caps)
    model = LinearProgram(
        weights=weights / (weights.max(initial=0.0) or 1.0),
        upper=caps * scale,
        i=graph.i[rows],
        j=graph.j[rows],
        distance=graph.distance[rows] * scale[graph.i[rows]],
    )
    began = time.perf_counter()
    solution = _run(solver, model, problem.time_limit)
    stats = {"rows": model.i.size, "seconds_solve": time.perf_counter() - began}

    largest_weight = float(weights.max(initial=0.0))
    upper_bound = _upper_bound(graph, weights, rows, solution.edge_duals * largest_weight)
    radii = fill(graph, caps, trim(graph, np.clip(np.nan_to_num(solution.radii / scale), 0.0, caps)))
    method, status = f"lp ({solver})", solution.status
    if not solution.optimal:
        warnings.warn(f"{solver} stopped before the optimum: {status}", RuntimeWarning, stacklevel=4)
        start = _greedy.eq11(graph, caps, _greedy.permutation(graph, "ascending"))
        if problem.objective(start) >= problem.objective(radii):
            radii, method = start, f"greedy (ascending order, within nearest neighbours), after lp ({solver}) stopped"
        else:
            method = f"lp ({solver}), stopped and repaired"
    elif relative_gap(problem.objective(radii), upper_bound) > _NEGLIGIBLE:
        status = f"not proven optimal: {solver} lost accuracy, see gap; rescale points that differ widely in scale"
    return Answer(radii, caps, method, status, upper_bound, stats)


def _run(solver: str, model: LinearProgram, time_limit: float | None) -> Solution:
    if not model.i.size:
        return Solution(model.upper, np.empty(0), True, "optimal: no two balls compete")
    return solvers.solve(solver, model, time_limit)


def _caps(
    graph: OverlapGraph, R: Float64[np.ndarray, " n"], distance: Float64[np.ndarray, " m"]
) -> Float64[np.ndarray, " n"]:
    caps = R.copy()
    np.minimum.at(caps, graph.i, distance)
    np.minimum.at(caps, graph.j, distance)
    return caps


def _scale(components: Int64[np.ndarray, " n"], caps: Float64[np.ndarray, " n"]) -> Float64[np.ndarray, " n"]:
    """A power of two for every component, so that lengths in it are about 1: solvers' tolerances are absolute.

    Components do not interact, so each may have a unit of its own.
    """
    largest = np.zeros(components.max(initial=-1) + 1)
    np.maximum.at(largest, components, caps)
    exponent = np.where(largest > 0, np.frexp(largest)[1], 0)
    return np.asarray(np.ldexp(1.0, -exponent)[components])


def _upper_bound(
    graph: OverlapGraph,
    weights: Float64[np.ndarray, " n"],
    rows: Bool[np.ndarray, " m"],
    duals: Float64[np.ndarray, " k"],
) -> float:
    """Value of the dual point (y, z) with y = max(0, duals) and the least feasible z, every rounding upwards."""
    y = np.zeros(graph.n_edges)
    y[rows] = np.maximum(np.nan_to_num(duals, posinf=0.0), 0.0)
    covered = np.bincount(graph.i, y, graph.n) + np.bincount(graph.j, y, graph.n)
    least = 1 - (graph.degree + 4) * 2.0**-53  # summing `degree` terms errs by less
    z = np.maximum(weights - covered * least, 0.0) * (1 + 2.0**-51)
    caps = _caps(graph, graph.R, graph.distance_upper)
    terms = np.concatenate([graph.distance_upper * y, caps * z])
    return math.fsum(np.nextafter(terms, np.inf)[terms > 0]) * (1 + 2.0**-51)
