"""How the built-in model does on drawings by programs that it never learned from, and on changed drawings."""
