"""Randomized smoothing: named noise streams, votes, confidence bounds, certified radii.

Images are in [0, 1] with shape (n, C, H, W); noise levels and radii are l2 in those units. Nothing here sees a true
label, but for training images: a certificate says that the prediction does not change, not that it is right.
"""

from importlib.metadata import version

from smoothing._voting.samplers import make_sampler
from smoothing.adaptive import Ladder
from smoothing.classifier import SmoothedClassifier
from smoothing.confidence import certified_radius, lower_confidence_bound, top_two_p_value, upper_confidence_bound
from smoothing.levels import sigma_grid
from smoothing.results import ABSTAIN, Certificates, Decisions, Identity, Predictions, SigmaChoice
from smoothing.runs import Selection, certify_to_file
from smoothing.sequences import sequence_bounds
from smoothing.tables import CertificateTable, read_certificates, write_certificates

__version__ = version("srs-certify")

__all__ = [
    "ABSTAIN",
    "CertificateTable",
    "Certificates",
    "Decisions",
    "Identity",
    "Ladder",
    "Predictions",
    "Selection",
    "SigmaChoice",
    "SmoothedClassifier",
    "certified_radius",
    "certify_to_file",
    "lower_confidence_bound",
    "make_sampler",
    "read_certificates",
    "sequence_bounds",
    "sigma_grid",
    "top_two_p_value",
    "upper_confidence_bound",
    "write_certificates",
]
