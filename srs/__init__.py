"""The application: settings, pipeline, reports and commands. It composes `training`, `smoothing` and `regions`."""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from srs.predict.estimator import Estimator
    from srs.predict.loading import LoadedRun, load_run
    from srs.predict.online import Arrivals
    from srs.predict.predictor import Answers

__all__ = ["Answers", "Arrivals", "Estimator", "LoadedRun", "__version__", "load_run"]

#: In which modules the names are that need PyTorch.
_LATER = {
    "Answers": "srs.predict.predictor",
    "Arrivals": "srs.predict.online",
    "Estimator": "srs.predict.estimator",
    "LoadedRun": "srs.predict.loading",
    "load_run": "srs.predict.loading",
}

__version__ = version("srs-certify")


def __getattr__(name: str) -> Any:
    """Import what needs PyTorch, which takes seconds, once it is asked for."""
    if name not in _LATER:
        raise AttributeError(f"module 'srs' has no attribute {name!r}")
    from regions.extras import need

    need("certify", f"srs.{name}")
    globals()[name] = found = getattr(import_module(_LATER[name]), name)
    return found
