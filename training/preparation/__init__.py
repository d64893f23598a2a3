"""Recordings of any format to a folder of samples with fixed splits."""
