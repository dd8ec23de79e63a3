"""Finding the pairs of balls that may overlap. The candidates include every pair that does overlap."""
