"""What to do when the overlap graph would be too large to list."""
