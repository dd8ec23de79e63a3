"""What every method is given, and what it hands back to the front door."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from regions._allocation import Certificate
from regions._graph import OverlapGraph


@dataclass(frozen=True, eq=False)
class Problem:
    """Eq. 10 as the methods see it: validated arrays only."""

    graph: OverlapGraph
    weights: Float64[np.ndarray, " n"] | None
    order: str | np.ndarray | None = None
    solver: str | None = None
    time_limit: float | None = None
    reserve: bool = False
    start: Float64[np.ndarray, " n"] | None = None
    parallel: int | str | None = None

    def objective(self, radii: Float64[np.ndarray, " n"]) -> float:
        """Sum of the radii, correctly rounded; if weighted, of products rounded down."""
        if self.weights is None:
            return math.fsum(radii)
        return math.fsum(np.nextafter(self.weights * radii, 0.0))


@dataclass(frozen=True, eq=False)
class Answer:
    """What a method hands back to the front door, which trims the radii to strict feasibility."""

    radii: Float64[np.ndarray, " n"]
    bounds: Float64[np.ndarray, " n"]
    """Radii are cut to these before they are trimmed."""
    method: str
    status: str
    upper_bound: float | None
    stats: Mapping[str, float]
    certificate: Certificate | None = None
    warning: str | None = None
    """Why the method stopped before the end: the front door warns of it."""
    graph: OverlapGraph | None = None
    """With the edges that constrain the radii, where these are others than the problem's."""
