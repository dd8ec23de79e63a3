"""Choosing a noise level and a radius for every point at once."""
