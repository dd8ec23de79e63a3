"""Methods for instances whose overlap graph has too many edges to list."""
