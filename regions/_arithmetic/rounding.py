"""The unit in which bounds on rounding errors of float64 are written, and for which factors products are known."""

UNIT = 2.0**-53
"""Unit roundoff of float64: no operation errs by more than this, relatively, unless it overflows or underflows."""

LARGEST_DIVISOR = 1 << 24
"""Products of larger integers with float64 numbers need more than two floats (`scaled`)."""
