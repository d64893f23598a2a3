"""How the built-in demonstration model is made, from nothing, on a CPU."""
