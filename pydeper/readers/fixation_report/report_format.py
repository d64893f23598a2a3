"""Which column of a fixation report is what; and the columns that the trackers' software writes."""

from collections.abc import Mapping
from typing import Literal

import attrs

from pydeper.readers.tables.table import Column
from pydeper.readers.trajectories import one_of
from pydeper.samples.durations import UNITS

ROLES = ("x", "y", "duration", "subject", "image", "trial", "start", "fixation")
"""What a column can be, by the names of `ReportFormat`'s attributes."""

NUMBERS = ("x", "y", "duration", "start")
"""Those that hold numbers."""


@attrs.frozen(kw_only=True)
class ReportFormat:
    """Which column of a fixation report is what, and what its numbers mean.

    Attributes:
        x: Column of the horizontal position.
        y: Column of the vertical position.
        duration: Column of the duration.
        time_unit: Of the duration: "s", "ms", "us" or "ns".
        units: Of x and y: "normalised" (fractions of the image), "image_px" (pixels of the upright image) or
            "screen_px" (pixels of the screen, whose `Placement` must then be given).
        subject: Column of the person; None: the file is of one person, who is named when it is read.
        image: Column of the image's name, with or without its suffix; None: the file is of one image, which is named
            when it is read. Of several columns, a row's image is the first of them that has a file.
        trial: Column that tells two viewings of an image by one person apart, or None.
        start: Column of the start, which must not go backwards within a viewing, or None. Fixations that overlap in
            time are refused: they are of both eyes, or several rows of one.
        start_unit: Of the start, as `time_unit`; None: that of the duration, or where all would overlap, the next
            larger.
        fixation: Column of the fixation's number, where several rows belong to one; its position is their mean, its
            duration the longest that they give.
        keep: Rows that count, by column: the values that it may have (in any case); other rows are passed over.
        not_images: What the column of images says where none was shown; such rows are passed over.
        y_up: Whether y grows upwards, from the lower edge.

    Examples:
        >>> import attrs
        >>> from pydeper.readers import REPORT_FORMATS, ReportFormat
        >>> mine = ReportFormat(x="x", y="y", duration="ms", units="image_px", subject="who", image="picture")
        >>> mine.time_unit, mine.units
        ('ms', 'image_px')
        >>> eyelink = attrs.evolve(REPORT_FORMATS["eyelink"], image="picture")
        >>> eyelink.x, eyelink.units, eyelink.image
        ('CURRENT_FIX_X', 'screen_px', 'picture')
    """

    x: Column
    y: Column
    duration: Column
    time_unit: Literal["s", "ms", "us", "ns"] = "ms"
    units: Literal["normalised", "image_px", "screen_px"] = "normalised"
    subject: Column | None = None
    image: Column | None = None
    trial: Column | None = None
    start: Column | None = None
    fixation: Column | None = None
    start_unit: Literal["s", "ms", "us", "ns"] | None = None
    not_images: tuple[str, ...] = ()
    keep: Mapping[str, tuple[str, ...]] = attrs.Factory(dict)
    y_up: bool = False

    def __attrs_post_init__(self) -> None:
        one_of("time_unit", self.time_unit, tuple(UNITS))
        one_of("start_unit", self.start_unit, (None, *UNITS))
        one_of("units", self.units, ("normalised", "image_px", "screen_px"))


REPORT_FORMATS: Mapping[str, ReportFormat] = {
    # Rows are gaze points; those of one fixation share its number.
    "tobii": ReportFormat(
        x=("Fixation point X [MCS norm]", "Fixation point X (MCSnorm)"),
        y=("Fixation point Y [MCS norm]", "Fixation point Y (MCSnorm)"),
        duration=(
            "Gaze event duration [ms]",
            "Gaze event duration",
            "Eye movement event duration [ms]",
            "Eye movement event duration",
        ),
        subject="Participant name",
        image=("Presented Stimulus name", "Presented Media name", "Recording media name"),
        trial="Recording name",
        fixation="Eye movement type index",
        not_images=("Eyetracker Calibration",),
        keep={"Eye movement type": ("Fixation",)},
    ),
    # The image is a variable of the experiment, so its column must be named.
    "eyelink": ReportFormat(
        x="CURRENT_FIX_X",
        y="CURRENT_FIX_Y",
        duration="CURRENT_FIX_DURATION",
        units="screen_px",
        subject="RECORDING_SESSION_LABEL",
        trial="TRIAL_INDEX",
        start="CURRENT_FIX_START",
    ),
    # Pupil Player: fixations_on_surface_NAME.csv, a row for every frame of a fixation. One recording and surface.
    "pupil_player": ReportFormat(
        x="norm_pos_x",
        y="norm_pos_y",
        duration="duration",
        start="start_timestamp",
        start_unit="s",
        fixation="fixation_id",
        keep={"on_surf": ("True", "1")},
        y_up=True,
    ),
    # Pupil Cloud, Marker Mapper: fixations.csv.
    "pupil_marker_mapper": ReportFormat(
        x="fixation x [normalized]",
        y="fixation y [normalized]",
        duration="duration [ms]",
        subject="recording id",
        trial="section id",
        start="start timestamp [ns]",
        start_unit="ns",
        fixation="fixation id",
        keep={"fixation detected on surface": ("True",)},
    ),
    # Pupil Cloud, Reference Image Mapper: fixations.csv.
    "pupil_reference_image": ReportFormat(
        x="fixation x [px]",
        y="fixation y [px]",
        duration="duration [ms]",
        units="image_px",
        subject="recording id",
        trial="section id",
        start="start timestamp [ns]",
        start_unit="ns",
        fixation="fixation id",
        keep={"fixation detected in reference image": ("True",)},
    ),
}
"""Formats by name, with the column names that the exporters write."""
