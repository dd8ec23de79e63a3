"""A limit that commands know before anything else is loaded."""

MOST_LEVELS = 1000
"""Noise levels of a run: more are a step that was mistyped."""
