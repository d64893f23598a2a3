"""A persona: made from samples by the persona encoder, kept in a file, shared on the Hub."""
