"""The front door: size the balls, and own the guarantee that they do not overlap."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from numpy.typing import ArrayLike

from regions import _greedy, _lp, _validate
from regions._allocation import Allocation, Answer, Problem
from regions._feasible import first_overlap, trim
from regions._graph import OverlapGraph, overlap_graph
from regions._search import Progress
from regions.solvers import SOLVERS

METHODS: Mapping[str, tuple[Callable[[Problem], Answer], frozenset[str]]] = {
    "lp": (_lp.solve, frozenset({"solver", "time_limit"})),
    "greedy": (_greedy.solve, frozenset({"order"})),
}
"""Every method with the options it understands."""


def allocate(
    points: ArrayLike,
    R: ArrayLike,
    method: str = "lp",
    *,
    groups: Any = None,
    weights: ArrayLike | None = None,
    order: str | ArrayLike | None = None,
    solver: str | None = None,
    time_limit: float | None = None,
    progress: Progress | None = None,
) -> Allocation:
    """Size open balls around the points so that no two that conflict overlap and the sum of radii is large.

    Parameters
    ----------
    points : array-like, shape (n, d) or (n, ...)
        Centres x_i; images are flattened. Any real dtype, also torch CPU tensors.
    R : array-like, shape (n,)
        Upper bounds of the radii, in the units of `points`, finite and >= 0.
    method : {"lp", "greedy"}, default="lp"
        "lp": the optimum of Eq. 10. "greedy": Eq. 11, in O(n + m) once the m overlapping pairs are known.
    groups : array-like, shape (n,), or a sequence of such arrays, default=None
        Pairs that share a label in ANY of the arrays may overlap. None: every pair conflicts (the paper).
    weights : array-like, shape (n,), default=None
        Weights >= 0 of the radii in the objective; None: all 1. Greedy's radii do not depend on them.
    order : {"ascending", "descending", "arrival"} or permutation, default="ascending"
        Greedy only: by degree in the overlap graph (ties by index), by index, or as given.
    solver : {"highs", "cvxpy"}, default="highs"
        LP only.
    time_limit : float, default=None
        LP only: seconds for the solver. When it does not finish, a `RuntimeWarning` says so and the best feasible radii
        at hand are returned, with a valid `upper_bound`.
    progress : callable, default=None
        Called as progress(stage, done, total) from time to time.

    Returns
    -------
    Allocation

    Raises
    ------
    ValueError
        If an argument is not as described, or is one that the method does not use; the message names the value.

    Notes
    -----
    Guaranteed for every method and whatever a solver returned: 0 <= r <= R, and r_i + r_j <= |x_i - x_j| in exact
    arithmetic for every conflicting pair whose balls are both non-empty. "lp" keeps that also for empty balls of
    points with R > 0, as Eq. 10 does; "greedy" may leave a point with r = 0 inside an earlier ball.

    Examples
    --------
    >>> allocate([[0.0], [1.0], [5.0]], [0.75, 0.5, 1.0])
    Allocation(n=3, objective=2, gap=..., method='lp (highs)')
    """
    _validate.as_choice(method, tuple(METHODS), "method")  # before the search, which may take long
    x = _validate.as_points(points)
    options = _options(len(x), method, order=order, solver=solver, time_limit=time_limit)
    checked_weights = _validate.as_weights(weights, len(x))
    began = time.perf_counter()
    graph = overlap_graph(x, R, groups=groups, progress=progress)
    return _solve(Problem(graph, checked_weights, **options), method, {"seconds_graph": time.perf_counter() - began})


def allocate_graph(
    graph: OverlapGraph,
    method: str = "lp",
    *,
    weights: ArrayLike | None = None,
    order: str | ArrayLike | None = None,
    solver: str | None = None,
    time_limit: float | None = None,
) -> Allocation:
    """Size the balls of an overlap graph: `allocate` for when several methods share one search.

    Parameters and guarantees are those of `allocate`, for the points, bounds and groups the graph was built from.
    """
    _validate.as_choice(method, tuple(METHODS), "method")
    options = _options(graph.n, method, order=order, solver=solver, time_limit=time_limit)
    return _solve(Problem(graph, _validate.as_weights(weights, graph.n), **options), method, {})


def _options(n: int, method: str, **given: Any) -> dict[str, Any]:
    """The options that were given, checked; one that the method would ignore is an error."""
    options = {name: value for name, value in given.items() if value is not None}
    understood = METHODS[method][1]
    for name, value in options.items():
        if name not in understood:
            takers = " or ".join(repr(m) for m, (_, names) in METHODS.items() if name in names)
            raise ValueError(f"{name} = {value!r} has no effect with method={method!r}: use it with {takers}")
    if "order" in options:
        options["order"] = _validate.as_order(options["order"], n)
    if "solver" in options:
        _validate.as_choice(options["solver"], tuple(SOLVERS), "solver")
    if "time_limit" in options:
        options["time_limit"] = _validate.as_seconds(options["time_limit"], "time_limit")
    return options


def _solve(problem: Problem, method: str, stats: Mapping[str, float]) -> Allocation:
    graph = problem.graph
    began = time.perf_counter()
    answer = METHODS[method][0](problem)
    radii = trim(graph, answer.radii.clip(0.0, answer.bounds))
    edge = first_overlap(graph, radii)
    if edge >= 0 or (radii > graph.R).any() or (radii < 0).any():
        raise RuntimeError(f"internal error: {answer.method} left radii that overlap or exceed R; please report it")
    radii.flags.writeable = False
    return Allocation(
        radii=radii,
        objective=problem.objective(radii),
        upper_bound=answer.upper_bound,
        method=answer.method,
        status=answer.status,
        graph=graph,
        stats={
            **stats,
            "seconds_allocate": time.perf_counter() - began,
            "edges": graph.n_edges,
            "components": graph.n_components,
            **answer.stats,
        },
    )
