"""The tiny world: drawings of coloured shapes, and simulated people who look at them and describe them."""
