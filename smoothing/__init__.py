"""Randomized smoothing: named noise streams, votes, confidence bounds, certified radii.

Images are in [0, 1] with shape (n, C, H, W); noise levels and radii are l2 in those units. Nothing here sees a true
label: a certificate says that the prediction does not change, not that it is right.
"""

from smoothing.certify import SmoothedClassifier
from smoothing.confidence import certified_radius, lower_confidence_bound, top_two_p_value
from smoothing.levels import sigma_grid
from smoothing.results import ABSTAIN, Certificates, Predictions, SigmaChoice

__all__ = [
    "ABSTAIN",
    "Certificates",
    "Predictions",
    "SigmaChoice",
    "SmoothedClassifier",
    "certified_radius",
    "lower_confidence_bound",
    "sigma_grid",
    "top_two_p_value",
]
