"""The vision-language model on this machine: what is the same on every runtime."""
