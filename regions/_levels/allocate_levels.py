"""The joint choice of noise levels and radii: the entry point, which runs the stages and checks their result.

The stages are a search for good levels (`search`, `block_moves`), a proof for small components (`enumeration`), and an
upper bound for the rest (`bound`). docs/levels.md has the mathematics.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64, Real
from numpy.typing import ArrayLike

from regions import _validate
from regions._allocate import allocate, allocate_graph
from regions._allocation import Allocation, relative_gap
from regions._arithmetic.distances import relative_error
from regions._graph import TooManyOverlaps, build_graph, from_blocks, overlap_graph
from regions._levels import block_moves, bound, enumeration, search
from regions._levels.problem import LevelProblem, State
from regions._search.pairs import Progress
from regions._search.trees import in_units

_MOST_EDGES = 1 << 22
"""With more edges than this, no levels are searched: messages and cuts take several hundred bytes for each edge."""
_OPTIMAL = 1e-9
"""The status calls an answer with a smaller relative gap optimal up to rounding."""
_CLOSE = 1e-2
"""The status gives no advice where the relative gap is smaller than this."""


@dataclass(frozen=True, eq=False)
class LevelAllocation:
    """A level and a radius for every point, and a bound on the sum of radii that any other choice could reach.

    Attributes
    ----------
    level : (n,) int64
        Index of the level chosen for each point.
    sigma : (n,) float64
        The noise level itself, sigmas[level].
    upper_bound : float
        No choice of levels and radii has a larger sum of radii. Rounded up.
    status : str
        A sentence that says what was found, and how it compares with the two simple answers.
    allocation : Allocation
        The radii at these levels. Its own bound and gap are those of Eq. 10 with the levels fixed.
    stats : mapping
        Seconds per stage (`seconds_*`), sizes, and the sums of the two simple answers. `points_proven` counts the
        points in components that enumeration solved. `objective_best_level` is the sum where every point takes the
        level of its largest bound, `objective_common_level` the sum where all points take the best common level.
    """

    level: Int64[np.ndarray, " n"]
    sigma: Float64[np.ndarray, " n"]
    upper_bound: float
    status: str
    allocation: Allocation
    stats: Mapping[str, float]

    @property
    def radii(self) -> Float64[np.ndarray, " n"]:
        """(n,) radii, r_j <= R[j, level[j]]."""
        return self.allocation.radii

    @property
    def objective(self) -> float:
        """Sum of the radii, rounded down."""
        return self.allocation.objective

    @property
    def gap(self) -> float:
        """(upper_bound - objective) / upper_bound, in [0, 1]."""
        return relative_gap(self.objective, self.upper_bound)

    def __repr__(self) -> str:
        return f"LevelAllocation(n={self.level.size}, objective={self.objective:.6g}, gap={self.gap:.1e})"


@_validate.renamed(levels="sigmas", seconds="time_limit")
def allocate_levels(
    points: ArrayLike,
    sigmas: ArrayLike,
    R: ArrayLike,
    *,
    groups: Any = None,
    rounds: int = 1,
    sweeps: int = 10,
    time_limit: float | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> LevelAllocation:
    """Choose a noise level and a radius for every point, so that the sum of radii is large.

    Balls at the same level may overlap; balls at different levels may not.

    Parameters
    ----------
    points : array-like, shape (n, d) or (n, ...)
        Centres; images are flattened. Any real dtype, also torch CPU tensors; memory maps as in `allocate`.
    sigmas : array-like, shape (K,)
        Noise levels, > 0 and increasing.
    R : array-like, shape (n, K)
        R[j, k] bounds the radius of point j at level k, in the units of `points`, finite and >= 0. R[j, k] = 0 means
        that the point is not certified at that level: its ball is then empty and constrains no other.
    groups : array-like, shape (n,) or (n, K), or a list or tuple of such arrays, default=None
        Two points that share a label in ANY of the arrays may overlap too. In an array of shape (n, K) the label of a
        point depends on the level chosen for it, as the predicted class does. As in `allocate`, only a list or tuple
        means several arrays.
    rounds : int, default=1
        Largest number of rounds of block moves, >= 0. A round that gains nothing is the last.
    sweeps : int, default=10
        Sweeps of messages for the upper bound, >= 0; a sweep goes through the points forwards and backwards. With 0
        sweeps, the bound ignores all conflicts outside the small components that are solved by enumeration.
    time_limit : float, default=None
        Seconds after which the search begins no further stage; the bound is computed all the same. Results then
        depend on the speed of the machine.
    seed : int, default=0
        Decides the order in which block moves are tried from the second round on.
    progress : callable, default=None
        Called as progress(stage, done, total) from time to time.

    Returns
    -------
    LevelAllocation

    Raises
    ------
    ValueError
        If an argument is not as described; the message names the value.

    Notes
    -----
    *Guarantee.* 0 <= r_j <= R[j, k_j] for the chosen level k_j, and r_i + r_j <= |x_i - x_j| in exact arithmetic for
    every two non-empty balls that conflict at the chosen levels. The sum of radii is at least that of both simple
    answers: all points at the best common level, and every point at the level of its largest bound with the radii of
    Eq. 10. The result is deterministic unless `time_limit` is given.

    The problem is NP-hard for three and more levels. Small components are solved by enumeration where that takes
    little time; everywhere else the search is a heuristic, and `upper_bound` says how far it can be from the optimum.

    *Method.* An expansion move lets any set of points change to one level at once; a minimum cut on a grid of radii
    finds the best set. A block move changes the level of one point together with the neighbours that would be in its
    way. Radii become those of Eq. 10 after every expansion move and after every round of block moves (docs/levels.md).
    Where more than 2^22 pairs overlap at the largest bounds, no levels are searched: the better of the two simple
    answers is returned, and `status` says so.

    Examples
    --------
    >>> allocate_levels([[0.0], [1.0]], [0.25, 0.5], [[1.0, 0.9], [0.7, 0.8]])
    LevelAllocation(n=2, objective=1.7, gap=...)
    """
    x = _validate.as_points(points)
    sigma = _validate.as_noise_levels(sigmas)
    bounds = _validate.as_level_radii(R, len(x), sigma.size)
    labels = _validate.as_level_groups(groups, len(x), sigma.size)
    rounds, sweeps = _validate.as_count(rounds, "rounds"), _validate.as_count(sweeps, "sweeps")
    limit = _validate.as_seconds(time_limit, "time_limit")
    rng = np.random.default_rng(_validate.as_count(seed, "seed"))

    scaled, enlarged = in_units(x, bounds)
    if enlarged is not bounds:
        found = allocate_levels(
            scaled,
            sigma,
            enlarged,
            groups=groups,
            rounds=rounds,
            sweeps=sweeps,
            time_limit=limit,
            seed=seed,
            progress=progress,
        )
        return _back(found, LevelProblem(overlap_graph(x, bounds.max(axis=1)), bounds, labels), enlarged)

    began = time.perf_counter()
    try:
        graph = build_graph(x, bounds.max(axis=1), (), progress, most=_MOST_EDGES)
    except TooManyOverlaps:
        return _simple(x, sigma, bounds, labels, began)
    whole = LevelProblem(graph, bounds, labels)
    searching = time.perf_counter()
    members = np.flatnonzero(graph.degree)
    part = whole.restricted(members, np.arange(graph.n_edges))
    state = _search(part, rounds, rng, None if limit is None else searching + limit)
    proven, settled = enumeration.settle(part, state)
    level = bounds.argmax(axis=1)
    level[members] = state.level
    common = np.argmax([math.fsum(column) for column in bounds.T])
    choices = [level, bounds.argmax(axis=1), np.full(len(x), common, dtype=np.int64)]
    answers = [whole.allocate(choice) for choice in choices]
    best = max(range(3), key=lambda c: answers[c].objective)  # a simple answer is larger at most by rounding
    level, allocation = choices[best], answers[best]
    bounding = time.perf_counter()
    rest = part.restricted(np.flatnonzero(~proven), np.flatnonzero(~proven[part.graph.i]))
    elsewhere = _sum_up([*np.delete(bounds.max(axis=1), members), settled])
    upper = _sum_up([elsewhere, bound.upper_bound(rest, sweeps, allocation.objective, elsewhere)])
    ended = time.perf_counter()

    stats = {
        "seconds_graph": searching - began,
        "seconds_search": bounding - searching,
        "seconds_bound": ended - bounding,
        "edges": graph.n_edges,
        "points_in_conflict": members.size,
        "points_proven": int(np.count_nonzero(proven)),
        "objective_best_level": answers[1].objective,
        "objective_common_level": answers[2].objective,
    }
    return LevelAllocation(level, sigma[level], upper, _status(allocation, upper, stats), allocation, stats)


def _back(found: LevelAllocation, problem: LevelProblem, enlarged: Float64[np.ndarray, "n K"]) -> LevelAllocation:
    """Scale an answer back: `found` is the answer for `problem` with all lengths multiplied by a power of two.

    Lengths are scaled up where they are so small that their squares would underflow.
    """
    exponent = math.frexp(problem.R.max())[1] - math.frexp(enlarged.max())[1]
    lengths = {k: math.ldexp(v, exponent) for k, v in found.stats.items() if k.startswith("objective")}
    upper = math.nextafter(math.ldexp(found.upper_bound, exponent), math.inf)  # scaling down may have rounded it
    allocation, stats = problem.allocate(found.level), {**found.stats, **lengths}
    return LevelAllocation(found.level, found.sigma, upper, _status(allocation, upper, stats), allocation, stats)


def _simple(
    x: Real[np.ndarray, "n d"],
    sigma: Float64[np.ndarray, " K"],
    bounds: Float64[np.ndarray, "n K"],
    labels: Int64[np.ndarray, "n K c"],
    began: float,
) -> LevelAllocation:
    """Return the better of the two simple answers, for when so many pairs overlap that they cannot be listed.

    One answer puts all points at the best common level, where no two conflict. The other puts every point at the level
    of its largest bound, with the radii of Eq. 10. The upper bound is the sum of the largest bounds.
    """
    n = len(x)
    common = np.full(n, np.argmax([math.fsum(column) for column in bounds.T]), dtype=np.int64)
    best = bounds.argmax(axis=1)
    one = np.ascontiguousarray(bounds[np.arange(n), common])
    groups = [best, *(labels[np.arange(n), best, c] for c in range(labels.shape[2]))]
    answers = (
        (best, allocate(x, bounds.max(axis=1), "matching", groups=groups)),
        (common, allocate_graph(from_blocks(one, relative_error(x.shape[1]), []), "matching")),
    )
    level, allocation = max(answers, key=lambda answer: answer[1].objective)
    upper = _sum_up(bounds.max(axis=1).tolist())
    gap = relative_gap(allocation.objective, upper)
    stats = {
        "seconds_graph": time.perf_counter() - began,
        "edges": allocation.graph.n_edges,
        "objective_best_level": answers[0][1].objective,
        "objective_common_level": answers[1][1].objective,
    }
    status = (
        f"no search, because more than {_MOST_EDGES:,} pairs overlap: the better of best levels and best common level, "
        f"within {gap:.1e} of the optimum, relatively; lower R to search"
    )
    return LevelAllocation(level, sigma[level], upper, status, allocation, stats)


def _search(part: LevelProblem, rounds: int, rng: np.random.Generator, deadline: float | None) -> State:
    """Improve both simple answers by expansion moves, fuse them into one, and improve that by block moves."""

    def late() -> bool:
        return deadline is not None and time.perf_counter() > deadline

    common, best = State.common_levels(part), State.best_levels(part)
    for state in (best, common):
        if not late():
            search.expand_all(part, state, search.COARSE)
    best.take(part, common.level, common.radii)
    if not late():
        search.fuse(part, best, common, search.FINE)
    for number in range(rounds + 1):
        if number and (late() or not block_moves.improve(part, best, rng if number > 1 else None)):
            break
        if late():
            break
        search.expand_all(part, best, search.FINE)
    return best


def _sum_up(terms: list[float]) -> float:
    """The sum of the terms, rounded upwards. A single non-zero term is its own sum and stays as it is."""
    total = math.fsum(terms)
    return math.nextafter(total, math.inf) if np.count_nonzero(terms) > 1 else total


def _status(allocation: Allocation, upper: float, stats: Mapping[str, float]) -> str:
    simple = max(stats["objective_best_level"], stats["objective_common_level"])
    gap = relative_gap(allocation.objective, upper)
    gain = allocation.objective / simple - 1 if simple else 0.0
    found = "optimal up to rounding" if gap < _OPTIMAL else f"within {gap:.1e} of the optimum, relatively"
    advice = "" if gap < _CLOSE else "; more sweeps or rounds may help, less so where very many pairs overlap"
    return f"{found}; {math.floor(1000 * gain) / 10:.1f}% above the better of best levels and best common level{advice}"
