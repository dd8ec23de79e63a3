"""The application: settings, pipeline, reports and commands. It composes `training`, `smoothing` and `regions`."""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from srs.predict.loading import LoadedRun, load_run
    from srs.predict.online import Arrivals
    from srs.predict.predictor import Answers

__all__ = ["Answers", "Arrivals", "LoadedRun", "__version__", "load_run"]

__version__ = version("srs-certify")


def __getattr__(name: str) -> Any:
    """Import what needs PyTorch, which takes seconds, once it is asked for."""
    if name not in __all__:
        raise AttributeError(f"module 'srs' has no attribute {name!r}")
    from regions.extras import need

    need("certify", f"srs.{name}")
    loading = import_module("srs.predict.loading")
    globals().update({one: getattr(loading, one) for one in __all__ if one != "__version__"})
    return globals()[name]
