"""The vision-language model on ONNX Runtime, on this machine."""
