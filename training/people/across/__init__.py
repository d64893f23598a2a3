"""Identification across data sets of other sizes and kinds."""
