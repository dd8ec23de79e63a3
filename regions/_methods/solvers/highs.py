"""Eq. 10 by HiGHS, through its Python interface highspy."""

from __future__ import annotations

from typing import Any

import highspy
import numpy as np

from regions._methods.solvers.model import LinearProgram, Solution

_STATUS = {
    highspy.HighsModelStatus.kOptimal: "optimal",
    highspy.HighsModelStatus.kTimeLimit: "time limit reached: raise time_limit, or use method='greedy'",
    highspy.HighsModelStatus.kIterationLimit: "iteration limit reached: try solver='cvxpy', or method='greedy'",
    highspy.HighsModelStatus.kInterrupt: "interrupted: run it again",
    highspy.HighsModelStatus.kMemoryLimit: "out of memory: use method='greedy'",
}


class _Quiet(highspy.Highs):
    """HiGHS without its banner, which version 1.16 prints before a caller can set an option."""

    def enableCallbacks(self) -> None:  # noqa: N802 - highspy calls this method while it makes the object
        """Switch output off first."""
        self.setOptionValue("output_flag", False)
        super().enableCallbacks()  # type: ignore[no-untyped-call]


def solve(model: LinearProgram, time_limit: float | None) -> Solution:
    """Solve by the dual simplex method after presolve, HiGHS's default for programs of this kind."""
    n, m = model.weights.size, model.i.size
    lp = highspy.HighsLp()
    lp.num_col_, lp.num_row_ = n, m
    lp.sense_ = highspy.ObjSense.kMaximize
    lp.col_cost_ = model.weights
    lp.col_lower_, lp.col_upper_ = np.zeros(n), model.upper
    lp.row_lower_, lp.row_upper_ = np.full(m, -highspy.kHighsInf), model.distance
    lp.a_matrix_.format_ = highspy.MatrixFormat.kRowwise
    lp.a_matrix_.start_ = np.arange(0, 2 * m + 1, 2)
    lp.a_matrix_.index_ = np.column_stack([model.i, model.j]).ravel()
    lp.a_matrix_.value_ = np.ones(2 * m)

    highs: Any = _Quiet()  # type: ignore[no-untyped-call]
    highs.setOptionValue("output_flag", False)
    if time_limit is not None:
        highs.setOptionValue("time_limit", time_limit)
    highs.passModel(lp)
    highs.run()

    status = highs.getModelStatus()
    solution = highs.getSolution()
    radii = np.array(solution.col_value, dtype=np.float64)
    duals = np.array(solution.row_dual, dtype=np.float64)
    return Solution(
        radii=radii if radii.size == n else np.zeros(n),
        edge_duals=duals if duals.size == m else np.zeros(m),
        optimal=status == highspy.HighsModelStatus.kOptimal,
        status=_STATUS.get(status, f"HiGHS ended with {status.name}: try solver='cvxpy', or method='greedy'"),
    )
