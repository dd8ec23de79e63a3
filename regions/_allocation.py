"""The one result type of every allocation method."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64

from regions._graph import OverlapGraph

NEGLIGIBLE = 1e-6
"""A relative gap above this is not called optimal."""


def relative_gap(objective: float, upper_bound: float) -> float:
    """(upper_bound - objective) / upper_bound, at any scale; 0 where the objective reaches the bound."""
    missing = upper_bound - objective
    return missing / upper_bound if missing > 0 else 0.0


@dataclass(frozen=True, eq=False)
class Certificate:
    """A proof of an upper bound of Eq. 10 with unit weights that takes arithmetic alone to check.

    For feasible radii, r_i + r_p(i) <= d_i,p(i) wherever a permutation p moves i, and r_i <= c_i = min(R_i, distance to
    any one conflicting point); summed over all i the left-hand sides are 2 sum r. `regions.verify` does the sum.

    Attributes
    ----------
    partner : (n,) int64
        The permutation p; points that stay in place cost 2 c_i.
    nearest : (n,) int64
        The conflicting point whose distance bounds r_i, -1 for none (then c_i = R_i).
    """

    partner: Int64[np.ndarray, " n"]
    nearest: Int64[np.ndarray, " n"]


@dataclass(frozen=True, eq=False)
class Allocation:
    """Radii of balls that do not overlap where they conflict, and what is known about their optimality.

    Attributes
    ----------
    radii : (n,) float64
        0 <= radii <= R, and r_i + r_j <= |x_i - x_j| in exact arithmetic for every conflicting pair of non-empty balls.
    objective : float
        Sum of the radii, correctly rounded; if weighted, the sum of products rounded down. Never above `upper_bound`.
    upper_bound : float or None
        No allocation of Eq. 10 has a larger objective: the value of a dual feasible point, rounded up.
        None where no bound is known (plain greedy).
    gap : float or None
        (upper_bound - objective) / upper_bound: what at most is missing to the optimum, relative.
    method : str
        What actually ran.
    status : str
        A sentence: what happened, and what to do about it.
    graph : OverlapGraph
        The pairs that constrain the radii. Where listing all overlaps would take long, and the method allows it,
        `allocate` first cuts R to the distance of a near conflicting point: `graph.R` says to what. Where even then
        there are very many, it lists only those that the radii would otherwise violate: `stats` has `rounds`.
    stats : mapping
        Seconds per stage (`seconds_*`) and sizes (`edges`, `rows`, ...); `rounds` of row generation.
    certificate : Certificate or None
        From `method="matching"`: what `verify(..., certificate=)` checks.
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
        """Relative distance of the objective to the bound, in [0, 1]; None without a bound."""
        return None if self.upper_bound is None else relative_gap(self.objective, self.upper_bound)

    def __repr__(self) -> str:
        gap = "unknown" if self.gap is None else f"{self.gap:.1e}"
        return f"Allocation(n={self.radii.size}, objective={self.objective:.6g}, gap={gap}, method={self.method!r})"
