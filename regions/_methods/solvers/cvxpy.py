"""Eq. 10 in cvxpy, for readers who want to look at the model, add constraints or try other solvers."""

from __future__ import annotations

import warnings
from typing import Any

import cvxpy as cp
import numpy as np

from regions._methods.solvers.model import LinearProgram, Solution

_STATUS = {
    cp.OPTIMAL: "optimal",
    cp.USER_LIMIT: "time limit reached: raise time_limit, or use method='greedy'",
}


def formulate(model: LinearProgram) -> tuple[cp.Problem, cp.Variable, cp.Constraint]:
    """Eq. 10 in cvxpy: the problem, its radii and the constraint on the edges."""
    r = cp.Variable(model.weights.size, name="r")
    disjoint = r[model.i] + r[model.j] <= model.distance
    return cp.Problem(cp.Maximize(model.weights @ r), [disjoint, r >= 0, r <= model.upper]), r, disjoint


def solve(model: LinearProgram, time_limit: float | None) -> Solution:
    """Solve with HiGHS as cvxpy drives it."""
    problem, r, disjoint = formulate(model)
    options: dict[str, Any] = {} if time_limit is None else {"time_limit": time_limit}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # "may be inaccurate": the status says so, and we check
            problem.solve(solver=cp.HIGHS, **options)  # type: ignore[no-untyped-call]
        status = problem.status
    except cp.SolverError as error:  # cvxpy also raises this if the solver stopped at its time limit
        status = " ".join(str(error).split())
    return Solution(
        radii=np.zeros(model.weights.size) if r.value is None else np.asarray(r.value, dtype=np.float64),
        edge_duals=np.zeros(model.i.size)
        if disjoint.dual_value is None
        else np.asarray(disjoint.dual_value, dtype=np.float64),
        optimal=status == cp.OPTIMAL,
        status=_STATUS.get(status, f"cvxpy ended with {status}: try solver='highs', or method='greedy'"),
    )
