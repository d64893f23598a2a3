"""The training loop that runs any stage, with its checkpoints and logs."""
