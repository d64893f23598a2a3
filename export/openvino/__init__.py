"""Qwen2-VL through Optimum to OpenVINO's own files."""
