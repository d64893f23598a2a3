"""The command `python -m export`, a sub-command a file."""
