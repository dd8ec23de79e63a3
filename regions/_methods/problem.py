"""What every method receives from `allocate`, and what it returns to it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from regions._allocation import Certificate, relative_gap
from regions._graph import OverlapGraph


@dataclass(frozen=True, eq=False)
class Problem:
    """Eq. 10 and the options of a method, all validated."""

    graph: OverlapGraph
    weights: Float64[np.ndarray, " n"] | None
    order: str | np.ndarray | None = None
    solver: str | None = None
    time_limit: float | None = None
    reserve: bool = False
    start: Float64[np.ndarray, " n"] | None = None
    parallel: int | str | None = None
    r_min: float = 0.0
    """Least radius of every ball: `minimum` takes care of it, and other methods may leave it out."""
    granted: float = 0.0
    """What the objective is worth before any ball grows: gaps are relative to this and the rest."""

    def objective(self, radii: Float64[np.ndarray, " n"]) -> float:
        """Sum of the radii, correctly rounded. With weights: the sum of the products w_i r_i, each rounded down."""
        if self.weights is None:
            return math.fsum(radii)
        return math.fsum(np.nextafter(self.weights * radii, 0.0))

    def gap(self, radii: Float64[np.ndarray, " n"], upper_bound: float) -> float:
        """What the objective may miss of the optimum, as a part of the bound on it."""
        return relative_gap(self.granted + self.objective(radii), self.granted + upper_bound)


@dataclass(frozen=True, eq=False)
class Answer:
    """What a method returns. `allocate` then lowers the radii where rounding left them infeasible."""

    radii: Float64[np.ndarray, " n"]
    bounds: Float64[np.ndarray, " n"]
    """No radius may exceed its bound here: `allocate` cuts those that do."""
    method: str
    status: str
    upper_bound: float | None
    stats: Mapping[str, float]
    certificate: Certificate | None = None
    warning: str | None = None
    """Why the method stopped early, if it did: `allocate` issues it as a warning."""
    graph: OverlapGraph | None = None
    """The graph whose edges constrain the radii, if it is not the problem's."""
