"""The joint choice of noise levels and radii."""
