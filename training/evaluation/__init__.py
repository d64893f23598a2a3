"""Describing a samples file and scoring descriptions; bootstrap intervals, probes, tables and charts."""
