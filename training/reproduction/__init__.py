"""The data of the paper's experiments: where they come from, who is unseen, what an experiment will take."""
