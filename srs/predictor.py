"""The former name of `srs.predict.predictor`, kept for one version."""

import warnings

from srs.limits import OUTSIDE
from srs.predict.predictor import Answers, Predictor

__all__ = ["OUTSIDE", "Answers", "Predictor"]

warnings.warn("srs.predictor is now srs.predict.predictor: import from there", DeprecationWarning, stacklevel=2)
