"""Files -> samples, one module a format."""

from pydeper.readers.capgaze import read_capgaze
from pydeper.readers.deper_json import read_deper_json
from pydeper.readers.fixation_report import (
    REPORT_FORMATS,
    BoxRadius,
    Placement,
    ReportFormat,
    read_fixation_report,
)
from pydeper.readers.jsonl import read_samples, write_samples
from pydeper.readers.localized_narratives import read_localized_narratives
from pydeper.readers.recordings import read_recordings, sample_from_recording
from pydeper.readers.stream import ReadReport, SampleStream, Tolerance
from pydeper.readers.tables.numbers import MISSING_WORDS

__all__ = [
    "MISSING_WORDS",
    "REPORT_FORMATS",
    "BoxRadius",
    "Placement",
    "ReadReport",
    "ReportFormat",
    "SampleStream",
    "Tolerance",
    "read_capgaze",
    "read_deper_json",
    "read_fixation_report",
    "read_localized_narratives",
    "read_recordings",
    "read_samples",
    "sample_from_recording",
    "write_samples",
]
