"""The VLM's decoder on ONNX Runtime."""
