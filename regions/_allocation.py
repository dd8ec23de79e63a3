"""The result of an allocation, which has the same type for every method, and the certificate of an upper bound."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64

from regions._graph import OverlapGraph

NEGLIGIBLE = 1e-6
"""An exact method calls its result optimal if the relative gap is at most this."""


def relative_gap(objective: float, upper_bound: float) -> float:
    """(upper_bound - objective) / upper_bound; 0 if the objective reaches the bound."""
    missing = upper_bound - objective
    return missing / upper_bound if missing > 0 else 0.0


@dataclass(frozen=True, eq=False)
class Certificate:
    """A proof of an upper bound on the optimum of Eq. 10 with unit weights, which `regions.verify` checks by addition.

    Let p be a permutation of the points. Feasible radii satisfy r_i + r_p(i) <= d_i,p(i) for every point i that p
    moves. They satisfy 2 r_i <= 2 c_i for every other point, where c_i = min(R_i, distance to one conflicting point).
    (If no radius may be below r_min, that distance less r_min.) The left-hand sides sum to 2 sum_i r_i, because every
    point occurs twice. So half the sum of the right-hand sides bounds sum_i r_i.

    Attributes
    ----------
    partner : (n,) int64
        The permutation p; p(i) = i for points that it does not move.
    nearest : (n,) int64
        The conflicting point whose distance enters c_i; -1 for none, and then c_i = R_i.
    """

    partner: Int64[np.ndarray, " n"]
    nearest: Int64[np.ndarray, " n"]


@dataclass(frozen=True, eq=False)
class Allocation:
    """Radii of balls of which no two that conflict overlap, and what is known about their optimality.

    Attributes
    ----------
    radii : (n,) float64
        0 <= radii <= R, and r_i + r_j <= |x_i - x_j| in exact arithmetic for every conflicting pair of non-empty balls.
        None is below r_min, where that was given.
    objective : float
        Sum of the radii, correctly rounded. With weights: the sum of the products w_i r_i, each rounded down. Never
        above `upper_bound`.
    upper_bound : float or None
        No radii that are feasible for Eq. 10 have a larger objective. It is the value of a dual feasible point, rounded
        up. None if no bound is known (plain greedy).
    gap : float or None
        (upper_bound - objective) / upper_bound: the relative distance to the optimum is at most this.
    method : str
        What actually ran.
    status : str
        A sentence that says what happened, and what to do about it.
    graph : OverlapGraph
        The pairs that constrain the radii. If very many pairs overlap, and the method allows it, `allocate` first cuts
        R to the distance of a near conflicting point; `graph.R` is what remains. If very many pairs still overlap, the
        graph lists only those that row generation needed, and `stats` has `rounds`.
    stats : mapping
        Seconds per stage (`seconds_*`) and sizes: `edges` of the graph, `rows` (constraints) that the solver was given,
        `rounds` of row generation.
    certificate : Certificate or None
        A proof of the upper bound from `method="matching"`; `verify(..., certificate=)` checks it.
    """

    radii: Float64[np.ndarray, " n"]
    objective: float
    upper_bound: float | None
    method: str
    status: str
    graph: OverlapGraph
    stats: Mapping[str, float]
    certificate: Certificate | None = None

    @property
    def gap(self) -> float | None:
        """(upper_bound - objective) / upper_bound, in [0, 1]; None without a bound."""
        return None if self.upper_bound is None else relative_gap(self.objective, self.upper_bound)

    def __repr__(self) -> str:
        gap = "unknown" if self.gap is None else f"{self.gap:.1e}"
        return f"Allocation(n={self.radii.size}, objective={self.objective:.6g}, gap={gap}, method={self.method!r})"
