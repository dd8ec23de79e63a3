"""How the radii of an overlap graph are found: one method a file, and what they share."""
