"""Two or three arguments by position, all others by name: what a call means can be read in it."""

import inspect

import pytest

import smoothing
import training
from srs.predict.estimator import Estimator
from srs.predict.loading import LoadedRun, load_run
from srs.predict.predictor import Predictor

#: Records that functions return: nobody makes them by position.
RESULTS = {
    *("CertificateTable", "Certificates", "Decisions", "Identity", "Predictions", "SigmaChoice"),
    *("RoutedCertificates", "RoutedIdentity", "RoutedPredictions"),
}

PUBLIC = [
    *(getattr(training, name) for name in training.__all__),
    *(getattr(smoothing, name) for name in smoothing.__all__ if name not in RESULTS),
    Estimator,
    LoadedRun,
    load_run,
    Predictor,
]


def callables():
    """Yield public functions, classes and methods, by name."""
    for item in PUBLIC:
        if inspect.isclass(item):
            yield item.__name__, item
            for name, method in inspect.getmembers(item, inspect.isfunction):
                if item.__module__ == method.__module__ and (not name.startswith("_") or name == "__call__"):
                    yield f"{item.__name__}.{name}", method
        elif inspect.isfunction(item):
            yield item.__name__, item


@pytest.mark.parametrize(("name", "item"), dict(callables()).items(), ids=dict(callables()))
def test_at_most_three_arguments_are_given_by_position(name, item):
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = inspect.signature(item).parameters.values()
    places = [parameter.name for parameter in parameters if parameter.kind in kinds and parameter.name != "self"]
    assert len(places) <= 3, f"{name}({', '.join(places)})"


def test_functions_classes_and_methods_are_all_looked_at():
    assert {
        "certify_to_file",
        "SmoothedClassifier.certify",
        "fit",
        "SmoothAdv.__call__",
        "ImageData",
        "load_run",
        "LoadedRun.register",
        "Predictor.certify",
    } <= set(dict(callables()))
