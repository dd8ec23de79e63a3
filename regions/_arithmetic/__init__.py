"""Distances in float64 with a proven error, rounding to the safe side, and decisions in exact arithmetic."""
