"""Adapters to linear programming solvers: one module each, imported when asked for. All solve one scaled model."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module

from regions._methods.solvers.model import LinearProgram, Solution

SOLVERS: Mapping[str, int | None] = {"highs": 2000, "cvxpy": None}
"""Solvers by the name of their module here, which has a function `solve(model, time_limit)`.

The number says how many rows are put into one model; None puts all rows into one.
"""


def solve(solver: str, model: LinearProgram, time_limit: float | None) -> Solution:
    """Solve the model with the named solver; `time_limit` in seconds."""
    solution: Solution = import_module(f"regions._methods.solvers.{solver}").solve(model, time_limit)
    return solution


__all__ = ["SOLVERS", "LinearProgram", "Solution", "solve"]
