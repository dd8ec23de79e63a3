"""Models of other libraries and of exchange formats, as `KIND:NAME`: one adapter a file, imported where it is used."""
