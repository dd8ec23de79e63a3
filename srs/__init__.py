"""The application: settings, pipeline, reports and commands. It composes `training`, `smoothing` and `regions`."""

from importlib.metadata import version

__version__ = version("srs-certify")
