"""One training put together from a configuration and files."""
