"""Files -> samples, one module a format."""

from pydeper.readers.jsonl import read_samples, write_samples

__all__ = ["read_samples", "write_samples"]
