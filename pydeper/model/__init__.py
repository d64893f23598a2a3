"""A model in use: persona encoder, adapter and vision-language model together."""
