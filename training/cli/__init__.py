"""The command line `python -m training`: one sub-command a module, the parser and `main` in `main.py`."""
