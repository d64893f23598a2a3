"""Fixation reports, as eye trackers' software exports them: one fixation a row, CSV or TSV.

A `ReportFormat` says which column is what and what its numbers mean. `REPORT_FORMATS` has those of Tobii Pro Lab,
EyeLink Data Viewer and Pupil Labs; `attrs.evolve(REPORT_FORMATS["eyelink"], image="picture")` changes one for your
experiment. What people said about the images is in a second file, joined by person and image.
"""

from pydeper.readers.fixation_report.placement import BoxRadius, Placement
from pydeper.readers.fixation_report.read import read_fixation_report
from pydeper.readers.fixation_report.report_format import REPORT_FORMATS, ReportFormat

__all__ = ["REPORT_FORMATS", "BoxRadius", "Placement", "ReportFormat", "read_fixation_report"]
