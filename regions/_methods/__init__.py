"""Methods that size the balls of an overlap graph, one in each file, and what they share."""
