"""The version of pydeper."""

__version__ = "0.1.0"
