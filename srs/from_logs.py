"""The former name of `srs.logs.compare`, kept for one version."""

import warnings

from srs.logs.compare import Answer, Bounds, bounds_from, choose, compare, describe

__all__ = ["Answer", "Bounds", "bounds_from", "choose", "compare", "describe"]

warnings.warn("srs.from_logs is now srs.logs.compare: import from there", DeprecationWarning, stacklevel=2)
