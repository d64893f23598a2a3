"""What a model is on disk: its files, its configuration, and that both are as they were published."""
