"""The former name of `srs.logs.compare`, kept for one version."""

import warnings

from srs.evaluation.rules import Proofs as Bounds
from srs.evaluation.rules import RuleAnswers as Answer
from srs.logs.compare import choose, compare
from srs.logs.compare import proofs_from_logs as bounds_from

__all__ = ["Answer", "Bounds", "bounds_from", "choose", "compare"]

warnings.warn("srs.from_logs is now srs.logs.compare: import from there", DeprecationWarning, stacklevel=2)
