"""Qwen2-VL to ONNX."""
