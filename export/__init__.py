"""From trained torch models to the files of a bundle; run from a clone: python -m export."""
