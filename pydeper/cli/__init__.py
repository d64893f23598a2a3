"""The command `pydeper`."""
