"""The training loop that runs any stage, with its learning-rate schedule, signals, checkpoints and logs."""
