"""Adapters to linear programming solvers, one in each module. A module is imported when its solver is first used."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module

from regions._methods.solvers.model import LinearProgram, Solution

SOLVERS: Mapping[str, int | None] = {"highs": 2000, "cvxpy": None}
"""The solvers, each by the name of its module, which has a function `solve(model, time_limit)`.

The number says about how many constraints are put into one model. None puts all of them into one.
"""


def solve(solver: str, model: LinearProgram, time_limit: float | None) -> Solution:
    """Solve the model with the solver of this name, in at most `time_limit` seconds."""
    solution: Solution = import_module(f"regions._methods.solvers.{solver}").solve(model, time_limit)
    return solution


__all__ = ["SOLVERS", "LinearProgram", "Solution", "solve"]
