"""`allocate`, the entry point to all methods: it validates the arguments, runs a method, and checks the result.

Whatever a method returns, the radii are lowered here until no two balls overlap in exact arithmetic.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Float64
from numpy.typing import ArrayLike

from regions import _validate
from regions._allocation import Allocation
from regions._arithmetic.distances import relative_error
from regions._dense.caps import near_graph, sparse_enough
from regions._dense.greedy import generate_reserve
from regions._dense.greedy_stream import stream_greedy
from regions._dense.row_generation import generate_rows
from regions._graph import OverlapGraph, build_graph, from_blocks
from regions._methods import greedy, lp, matching, max_min
from regions._methods.bounds import caps_as_bounds
from regions._methods.minimum import admitting, check_bounds, with_minimum
from regions._methods.problem import Answer, Problem
from regions._methods.repair import first_overlap, trim
from regions._methods.solvers import SOLVERS
from regions._search.pairs import Progress
from regions.extras import need


@dataclass(frozen=True)
class Method:
    """A method: its function, the options it takes, and whether it can treat unequal weights."""

    solve: Callable[[Problem], Answer]
    options: frozenset[str]
    weighted: bool = True


def _auto(problem: Problem) -> Answer:
    """Matching for equal weights, because it is fastest; otherwise LP. The status says which one and why."""
    if _equal(problem.weights):
        name, why = "matching", "the weights are equal"
    else:
        name, why = "lp", "the weights differ, which matching cannot treat"
    answer = METHODS[name].solve(problem)
    return replace(answer, status=f"{answer.status} (auto chose {name}: {why})")


METHODS: Mapping[str, Method] = {
    "lp": Method(lp.solve, frozenset({"solver", "time_limit", "parallel"})),
    "matching": Method(matching.solve, frozenset({"start", "parallel"}), weighted=False),
    "greedy": Method(greedy.solve, frozenset({"order", "reserve"})),
    "max-min": Method(max_min.solve, frozenset()),
    "auto": Method(_auto, frozenset({"parallel"})),
}


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
    reserve: bool = False,
    start: ArrayLike | None = None,
    r_min: float | None = None,
    search: str = "auto",
    parallel: int | str | None = None,
    progress: Progress | None = None,
) -> Allocation:
    """Size open balls around the points so that no two that conflict overlap and the sum of radii is large.

    Parameters
    ----------
    points : array-like, shape (n, d) or (n, ...)
        Centres x_i; images are flattened. Any real dtype, also torch CPU tensors. float64, float32 and uint8 are not
        converted as a whole, so memory maps of these types are read in blocks and never copied. (In up to ten
        dimensions, k-d trees hold the points as float64.)
    R : array-like, shape (n,)
        Upper bounds of the radii, in the units of `points`, finite and >= 0.
    method : {"lp", "matching", "greedy", "max-min", "auto"}, default="lp"
        "lp": the optimum of Eq. 10. "matching": the same optimum for equal weights, by a combinatorial solver that is
        many times faster and returns a `certificate`. "greedy": Eq. 11, in O(n log n + m) once the m overlapping pairs
        are known. "max-min": the fairest radii instead of the largest sum. The smallest radius is as large as
        possible, then the second smallest, and so on; their sum is at least half of the optimum. "auto": "matching" if
        the weights are equal, otherwise "lp"; `status` says which.
    groups : array-like, shape (n,), or a list or tuple of such arrays, default=None
        Pairs that share a label in ANY of the arrays may overlap. None: every pair conflicts (the paper).
    weights : array-like, shape (n,), default=None
        Weights >= 0 of the radii in the objective; None: all 1. The radii of "greedy" and "max-min" do not depend on
        the weights.
    order : {"ascending", "descending", "arrival"} or permutation, default="ascending"
        Greedy only: by degree in the overlap graph (ties by index), by index, or as given. With `reserve`, degrees are
        counted after R has been cut, if it is cut (see Notes).
    solver : {"highs", "cvxpy"}, default="highs"
        LP only.
    reserve : bool, default=False
        Greedy only: around every point that comes later, each ball keeps out of a reserve of half that point's cap,
        min(R, distance to its nearest neighbour). The radii are then feasible for Eq. 10, and their sum is at least
        half of the optimum in any order.
    start : array-like, shape (n,), default=None
        Matching only: radii >= 0 to start from, such as those of an allocation for slightly different R. They need not
        be feasible. The sum is the same from any start; the radii may differ if the optimum is not unique.
    r_min : float, default=None
        Least radius of every ball; all but plain "greedy" keep it. It is refused, with the pair of points that forbids
        it, where two balls of that radius overlap. None, as 0: balls may be empty.
    time_limit : float, default=None
        LP only: seconds for the solver. If it does not finish, a `RuntimeWarning` says so, and the best feasible radii
        at hand are returned, with a valid `upper_bound`.
    search : {"auto", "faiss", "blocks", "tree"}, default="auto"
        How pairs that may overlap are searched for, as in `overlap_graph`. The answer is the same, unless a solver
        stops early during row generation.
    parallel : int or str, default=None
        Share the search for pairs, and the components of the graph, among joblib's workers. A number is the number of
        jobs (-1: all) of joblib's current backend, which is loky unless `joblib.parallel_config` says otherwise. A name
        stands for all workers of that backend: "loky" on this machine, "dask" or "ray" on a cluster. A component is
        never divided. The answer is the same, bit for bit, if all workers have processors of one kind. None: threads of
        this process.
    progress : callable, default=None
        Called as progress(stage, done, total) from time to time.

    Returns
    -------
    Allocation

    Raises
    ------
    ValueError
        If an argument is not as described, or if the method does not use it, or if no radii are as large as `r_min`.
        The message names the value.

    Notes
    -----
    *Guarantee*, for every method and whatever a solver returned: r_min <= r <= R, where r_min is 0 unless given, and
    r_i + r_j <= |x_i - x_j| in exact arithmetic for every conflicting pair of non-empty balls. All methods but plain
    "greedy" satisfy the second inequality also where one ball is empty and its R is positive, as Eq. 10 requires. Plain
    "greedy" may leave a point of radius 0 inside an earlier ball.

    If a sample of pairs suggests that very many overlap, they are not all listed. Instead, R is cut to the distance of
    a near conflicting point, or row generation adds constraints until none is violated (docs/mathematics.md, section
    2). The answer and its bound are still those of the whole problem.

    Examples
    --------
    >>> allocate([[0.0], [1.0], [5.0]], [0.75, 0.5, 1.0])
    Allocation(n=3, objective=2, gap=..., method='lp (highs)')
    """
    _validate.as_choice(method, tuple(METHODS), "method")  # before the search, which may take long
    x = _validate.as_points(points)
    options = _options(
        len(x), method, weights, order=order, solver=solver, time_limit=time_limit, reserve=reserve, start=start,
        r_min=r_min,
    )  # fmt: skip
    least = options.get("r_min", 0.0)
    options["parallel"], search = _validate.as_parallel(parallel), _validate.as_search(search)
    began = time.perf_counter()
    bounds, labels = _validate.as_radii(R, len(x)), _validate.as_groups(groups, len(x))
    check_bounds(bounds, least)
    solve = _solver(method, least)
    if sparse_enough(x, bounds, labels):
        graph = admitting(build_graph(x, bounds, labels, progress, options["parallel"], search), x, least)
    elif method == "greedy" and not reserve:
        graph = from_blocks(bounds, relative_error(x.shape[1]), [])
        solve = partial(stream_greedy, x, labels, progress)
    else:
        graph = admitting(near_graph(x, bounds, labels), x, least)
        caps = caps_as_bounds(graph)
        if sparse_enough(x, caps, labels):
            graph = admitting(build_graph(x, caps, labels, progress, options["parallel"], search), x, least)
        else:
            generate = generate_reserve if method == "greedy" else generate_rows
            solve = partial(generate, solve, x, labels, search, progress)
    return _solve(Problem(graph, **options), solve, {"seconds_graph": time.perf_counter() - began})


def allocate_graph(
    graph: OverlapGraph,
    method: str = "lp",
    *,
    weights: ArrayLike | None = None,
    order: str | ArrayLike | None = None,
    solver: str | None = None,
    time_limit: float | None = None,
    reserve: bool = False,
    start: ArrayLike | None = None,
    r_min: float | None = None,
    parallel: int | str | None = None,
) -> Allocation:
    """Size the balls of an overlap graph, so that several methods can share one search.

    Parameters and guarantees are those of `allocate` for the points, bounds and groups that the graph was built from.
    """
    _validate.as_choice(method, tuple(METHODS), "method")
    options = _options(
        graph.n,
        method,
        weights,
        order=order,
        solver=solver,
        time_limit=time_limit,
        reserve=reserve,
        start=start,
        r_min=r_min,
        parallel=parallel,
    )
    least = options.get("r_min", 0.0)
    check_bounds(graph.R, least)
    problem = Problem(admitting(graph, graph.points, least), **options)
    return _solve(problem, _solver(method, least), {})


def _solver(method: str, least: float) -> Callable[[Problem], Answer]:
    """The function of a method, which keeps a least radius if there is one."""
    solve = METHODS[method].solve
    return partial(with_minimum, solve) if least else solve


def _options(n: int, method: str, weights: ArrayLike | None, **given: Any) -> dict[str, Any]:
    """Check the options that were given. An option that the method would ignore is an error."""
    options = {name: value for name, value in given.items() if value is not None and value is not False}
    r_min = options.pop("r_min", None)
    for name, value in options.items():
        if name not in METHODS[method].options:
            takers = " or ".join(repr(m) for m, takes in METHODS.items() if name in takes.options)
            raise ValueError(f"{name} = {_shown(value)} has no effect with method={method!r}: use it with {takers}")
    if r_min is not None:
        options["r_min"] = _validate.as_number(r_min, "r_min")
        if options["r_min"] and method == "greedy" and "reserve" not in options:
            raise ValueError(
                f"r_min = {_shown(r_min)}: method='greedy' keeps no least radius; add reserve=True, or use 'lp', "
                "'matching', 'max-min' or 'auto'"
            )
    options["weights"] = _validate.as_weights(weights, n)
    if not METHODS[method].weighted and not _equal(options["weights"]):
        raise ValueError(f"weights differ, which method={method!r} cannot treat: use 'lp' or 'auto'")
    if "order" in options:
        options["order"] = _validate.as_order(options["order"], n)
    if "start" in options:
        options["start"] = _validate.as_radii(options["start"], n, "start")
    if "parallel" in options:
        options["parallel"] = _validate.as_parallel(options["parallel"])
    if "solver" in options:
        _validate.as_choice(options["solver"], tuple(SOLVERS), "solver")
    if options.get("solver") == "cvxpy":
        need("cvxpy", "solver = 'cvxpy'")
    if "time_limit" in options:
        options["time_limit"] = _validate.as_seconds(options["time_limit"], "time_limit")
    return options


def _shown(value: Any) -> str:
    """The value in one short line, for messages."""
    return repr(value) if isinstance(value, (str, int, float)) else f"<{type(value).__name__}>"


def _equal(weights: Float64[np.ndarray, " n"] | None) -> bool:
    return weights is None or not weights.size or bool((weights == weights[0]).all())


def _solve(problem: Problem, solve: Callable[[Problem], Answer], stats: Mapping[str, float]) -> Allocation:
    began = time.perf_counter()
    answer = solve(problem)
    if answer.warning:
        warnings.warn(answer.warning, RuntimeWarning, stacklevel=3)
    graph = answer.graph or problem.graph
    radii = trim(graph, answer.radii.clip(0.0, answer.bounds))
    edge = first_overlap(graph, radii)
    if edge >= 0 or (radii > graph.R).any() or (radii < problem.r_min).any():
        raise RuntimeError(
            f"internal error: {answer.method} left radii that overlap, or are outside r_min and R; please report it"
        )
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
            **answer.stats,
        },
        certificate=answer.certificate,
    )
