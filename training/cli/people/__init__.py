"""Sub-commands about people: whose samples these are, and what a persona gives away."""
