"""Many images described into one file, by a run that may be killed at any time and goes on when it is started again."""
