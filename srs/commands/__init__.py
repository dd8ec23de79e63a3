"""The command line programs, one module each. Importing this package imports nothing heavy."""
