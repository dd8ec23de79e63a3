"""Checks a run from its rows: mathematics of its own, that shares no code with what it checks."""
