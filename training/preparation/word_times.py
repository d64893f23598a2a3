"""`word_times.jsonl`: when each word of a spoken description was said, beside the samples of a prepared folder.

    {"image": "../images/17.jpg", "subject": "93", "description": "In this image …",
     "utterances": [["In this", 0.0, 0.4, [0.1, 0.2, 0.3, 0.3]], …]}

(on one line, one for each sample whose source has such times). Image, subject and description are those of the sample
in `samples.jsonl`. An utterance is a word or a few, with start and end in seconds, and the box around the pointer's
positions meanwhile, null where there were none.
"""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from pydeper.errors import InvalidSampleError
from pydeper.readers.image_folder import canonical, relative_path
from pydeper.readers.records import field, json_lines, kind, parse_object
from pydeper.readers.utterances import Utterance
from pydeper.samples.sample import Sample
from training.preparation.prepared_folder import WORD_TIMES

_Key = tuple[str, str | None, str | None]
_FIELDS = ("image", "subject", "description")


@attrs.frozen
class WordTimes:
    """What was said when in the descriptions of a samples file.

    Attributes:
        folder: The folder of the samples file.
        utterances: By the image's path relative to the folder, subject and description.
    """

    folder: Path
    utterances: Mapping[_Key, tuple[Utterance, ...]]

    @classmethod
    def beside(cls, samples: Path) -> "WordTimes":
        """Reads the file beside a samples file; where there is none, no times are known.

        Raises:
            InvalidSampleError: The file is damaged; the message names line and field.
        """
        folder = samples.parent.resolve()
        path = folder / WORD_TIMES
        known = {}
        for place, line in json_lines(path) if path.exists() else ():
            try:
                record = parse_object(line)
                image, subject, description = (field(record, name, str, "text") for name in _FIELDS)
                entries = field(record, "utterances", list, "a list of [text, start, end, box]")
                known[image, subject, description] = tuple(map(_utterance, entries))
            except InvalidSampleError as error:
                raise InvalidSampleError(f"{place}: {error}; prepare the data set again") from error
        return cls(folder, known)

    def of(self, sample: Sample) -> tuple[Utterance, ...]:
        """The utterances of a sample's description; empty where they are not known."""
        if not self.utterances:
            return ()
        image = relative_path(canonical(Path(str(sample.image))), self.folder)
        return self.utterances.get((image, sample.subject, sample.description), ())


def word_times_line(record: Mapping[str, Any], utterances: Sequence[Sequence[Any]]) -> bytes:
    """The line of a sample.

    Args:
        record: The sample's line in `samples.jsonl`, as an object.
        utterances: What was said, as `entry` has it.
    """
    line = {name: record.get(name) for name in _FIELDS} | {"utterances": utterances}
    return json.dumps(line, ensure_ascii=False).encode() + b"\n"


def entry(utterance: Utterance) -> list[Any]:
    """An utterance as plain JSON."""
    return [utterance.text, utterance.start, utterance.end, utterance.box]


def _utterance(value: Any) -> Utterance:
    match value:
        case [str(text), int() | float() as start, int() | float() as end, None]:
            return Utterance(text, float(start), float(end))
        case [str(text), int() | float() as start, int() | float() as end, [_, _, _, _] as box] if _is_box(box):
            x1, y1, x2, y2 = map(float, box)
            return Utterance(text, float(start), float(end), (x1, y1, x2, y2))
    raise InvalidSampleError(f"an utterance must be [text, start, end, box or null], not {kind(value)}")


def _is_box(box: Sequence[Any]) -> bool:
    numbers = all(isinstance(value, int | float) and math.isfinite(value) for value in box)
    return numbers and 0 <= box[0] <= box[2] <= 1 and 0 <= box[1] <= box[3] <= 1
