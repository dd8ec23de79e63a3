"""The classifier G (Eq. 9) of a finished run, asked about new images."""
