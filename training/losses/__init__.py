"""The losses of DEPER, one a file."""
