"""One table for the certificates of any methods, on the same images."""
