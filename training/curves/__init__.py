"""Curves over samples: how many a persona needs, and how many of each person a training needs."""
