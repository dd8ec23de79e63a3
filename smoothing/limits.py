"""Limits that commands know before anything else is loaded."""

MOST_LEVELS = 1000
"""Noise levels of a run: more are a step that was mistyped."""

MOST_CLASSES = 100_000
"""Classes of a data set or a network: more are a damaged file, or labels that are no numbers of classes."""
