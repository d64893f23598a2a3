"""What the benchmarks share: sides that work in turn, and the machine that figures are of."""
