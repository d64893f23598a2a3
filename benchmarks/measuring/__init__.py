"""What the benchmarks share: sides that work in turn, the machine that figures are of, a report's command."""
