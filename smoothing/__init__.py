"""Randomized smoothing: named noise streams, votes, confidence bounds, certified radii.

Images are in [0, 1] with shape (n, C, H, W); noise levels and radii are l2 in those units. Nothing here sees a true
label, but for training images: a certificate says that the prediction does not change, not that it is right.
"""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from smoothing._voting.samplers import make_sampler
    from smoothing.adaptive import Ladder
    from smoothing.agreement import agreeing_radius
    from smoothing.classifier import SmoothedClassifier
    from smoothing.confidence import certified_radius, lower_confidence_bound, top_two_p_value, upper_confidence_bound
    from smoothing.images import ImageSource
    from smoothing.levels import sigma_grid
    from smoothing.results import ABSTAIN, Certificates, Decisions, Identity, Predictions, SigmaChoice
    from smoothing.routing import RoutedClassifier
    from smoothing.routing_results import RoutedCertificates, RoutedIdentity, RoutedPredictions
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
    "ImageSource",
    "Ladder",
    "Predictions",
    "RoutedCertificates",
    "RoutedClassifier",
    "RoutedIdentity",
    "RoutedPredictions",
    "Selection",
    "SigmaChoice",
    "SmoothedClassifier",
    "agreeing_radius",
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

#: Where each public name is defined. A module is imported when one of its names is first used (PEP 562), so bounds and
#: tables need no PyTorch.
_HOMES = {
    "make_sampler": "smoothing._voting.samplers",
    "Ladder": "smoothing.adaptive",
    "agreeing_radius": "smoothing.agreement",
    "SmoothedClassifier": "smoothing.classifier",
    "certified_radius": "smoothing.confidence",
    "lower_confidence_bound": "smoothing.confidence",
    "top_two_p_value": "smoothing.confidence",
    "upper_confidence_bound": "smoothing.confidence",
    "ImageSource": "smoothing.images",
    "sigma_grid": "smoothing.levels",
    "ABSTAIN": "smoothing.results",
    "Certificates": "smoothing.results",
    "Decisions": "smoothing.results",
    "Identity": "smoothing.results",
    "Predictions": "smoothing.results",
    "SigmaChoice": "smoothing.results",
    "RoutedClassifier": "smoothing.routing",
    "RoutedCertificates": "smoothing.routing_results",
    "RoutedIdentity": "smoothing.routing_results",
    "RoutedPredictions": "smoothing.routing_results",
    "Selection": "smoothing.runs",
    "certify_to_file": "smoothing.runs",
    "sequence_bounds": "smoothing.sequences",
    "CertificateTable": "smoothing.tables",
    "read_certificates": "smoothing.tables",
    "write_certificates": "smoothing.tables",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
