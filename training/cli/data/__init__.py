"""`python -m training prepare`, and the arguments of a table of fixations."""
