"""Graphs on ONNX Runtime or OpenVINO: files checked before they are opened, devices, sessions, memory."""
