"""pydeper and other runtimes on the same Qwen2-VL-2B; `python -m benchmarks.peers`."""
