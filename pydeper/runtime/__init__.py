"""What every ONNX Runtime session needs: checked files, devices, memory."""
