"""The two stages of training DEPER, and which of their steps is kept."""
