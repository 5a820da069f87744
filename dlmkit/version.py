"""The version of dlmkit, where everything under it can import it from."""

__version__ = "0.1.0"
