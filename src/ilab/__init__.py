"""Builds a language model from a taxonomy, the way ``make`` builds a program from source."""

__version__ = "0.1.0"
