"""What linear programming solvers receive, and what they return."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64


@dataclass(frozen=True, eq=False)
class LinearProgram:
    """Maximise weights @ r subject to r[i] + r[j] <= distance and 0 <= r <= upper. Lengths and weights are about 1."""

    weights: Float64[np.ndarray, " n"]
    upper: Float64[np.ndarray, " n"]
    i: Int64[np.ndarray, " m"]
    j: Int64[np.ndarray, " m"]
    distance: Float64[np.ndarray, " m"]


@dataclass(frozen=True, eq=False)
class Solution:
    """The point at which a solver ended, feasible or not; zeros if it has none.

    `edge_duals` are the multipliers of r[i] + r[j] <= distance, >= 0 up to the solver's tolerance.
    """

    radii: Float64[np.ndarray, " n"]
    edge_duals: Float64[np.ndarray, " m"]
    optimal: bool
    status: str
