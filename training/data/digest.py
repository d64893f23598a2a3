"""What tells one set of samples from another, so that no training goes on, or counts as done, on other samples."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

from pydeper.samples.sample import Sample


def samples_digest(samples: Iterable[Sample]) -> str:
    """A digest of who said what of which image, and how they looked at it; images go by the names of their files."""
    digest = hashlib.sha256()
    for sample in samples:
        image = Path(sample.image).name if isinstance(sample.image, str | Path) else None
        looked = sample.trajectory
        fixations = None if looked is None else [looked.boxes.tolist(), looked.durations.tolist()]
        line = [sample.subject, sample.split, image, sample.description, fixations]
        digest.update(json.dumps(line).encode() + b"\n")
    return digest.hexdigest()
