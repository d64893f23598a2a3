"""Training of DEPER; used from a clone as `python -m training`, never part of the wheel."""
