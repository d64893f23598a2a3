"""Graphs on OpenVINO: the library, the operators that it lacks, and sessions."""
