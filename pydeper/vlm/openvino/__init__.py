"""The VLM's decoder on OpenVINO."""
