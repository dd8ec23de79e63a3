"""Distances in float64 with a proven error bound, rounding in a safe direction, and decisions in exact arithmetic."""
