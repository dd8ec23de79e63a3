"""The unit in which bounds on rounding errors of float64 are written."""

UNIT = 2.0**-53
"""Unit roundoff of float64: no operation errs by more than this, relatively, unless it overflows or underflows."""
