"""An adversary against a finished run: whether G keeps what is certified, and from where on does it fail."""
