"""Metrics of descriptions and of looking, as plain functions on lists."""
