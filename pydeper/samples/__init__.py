"""Samples of one person: an image, how they described it, and how they looked at it."""
