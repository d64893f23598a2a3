"""What every export needs: tracing, fused operators, quantisation, parity."""
