"""Drawings of coloured shapes: the world of the built-in model, and how to draw a picture for it."""
