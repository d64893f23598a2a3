"""The data sets that `identify-across` measures on: parts of one, simulated people, narrations.

Each is written as `samples.jsonl`, with the splits that `identify` reads: "train" to learn from, "val" to measure on.
"""

import contextlib
import json
import random
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import numpy as np
from PIL import Image

from pydeper.errors import InvalidArgumentError, InvalidSampleError
from pydeper.files.atomic import atomic_path
from pydeper.readers import read_localized_narratives, read_samples, write_samples
from pydeper.readers.localized_narratives import POINTER_STOPS
from pydeper.samples.sample import Sample
from training.data.digest import samples_digest
from training.outputs import OutputError
from training.preparation.prepare import PrepareOptions, prepare
from training.preparation.prepared_folder import SAMPLES, SPLITS_FILE
from training.preparation.splits import TRAIN, VAL
from training.tiny.world.rendering import render
from training.tiny.world.sampling import sample_scene
from training.tiny.world.viewers import sample_viewers

_PART = 1 / 3
_DRAWINGS, _TRAINING_DRAWINGS, _ORDERS_PER_GROUP = 24, 18, 8


@attrs.frozen
class DataSet:
    """One of them.

    Attributes:
        name: Of its folder and its configuration.
        title: What its rows in the table are called.
        write: Writes its `samples.jsonl` into a folder.
        selection_folds: Folds of the cross-validation within the training split that selects the model.
        folds: 0: it is measured on the split "val"; otherwise, on all photographs by cross-validation with so many
            folds, for data sets that are too small for a split.
    """

    name: str
    title: str
    write: Callable[[Path], None]
    selection_folds: int = 4
    folds: int = 0


def parts(samples: Path) -> list[DataSet]:
    """A third of the people with all their samples, and a third of the training photographs with all people.

    Photographs of the split "val" are all kept: both parts are measured on them.

    Raises:
        InvalidSampleError: The samples cannot be read, or a third of their people or photographs are fewer than two.
    """
    everything = read_samples(samples)
    people = sorted({str(sample.subject) for sample in everything})
    photographs = sorted({_name(sample) for sample in everything if sample.split == TRAIN})
    draw = random.Random(0)
    chosen_people = draw.sample(people, _part(people, "people", samples))
    chosen = draw.sample(photographs, _part(photographs, "training photographs", samples))

    return [
        DataSet(
            "a-third-of-the-people",
            f"{len(chosen_people)} of the {len(people)} people",
            partial(_write, [sample for sample in everything if sample.subject in chosen_people]),
        ),
        DataSet(
            "a-third-of-the-photographs",
            f"{len(chosen)} of the {len(photographs)} training photographs",
            partial(_write, [sample for sample in everything if sample.split != TRAIN or _name(sample) in chosen]),
        ),
    ]


def narrations(files: Sequence[Path]) -> DataSet:
    """Narrations with mouse traces, in the layout of Localized Narratives.

    A blank picture takes the place of each photograph: the networks of `identify-across` see no photographs, and the
    narrations need not come with theirs.
    """

    def write(folder: Path) -> None:
        pictures = folder / "images"
        pictures.mkdir(exist_ok=True)
        for name in _image_ids(files):
            _save(Image.new("RGB", (32, 32), "white"), pictures / f"{name}.jpg")
        stream = read_localized_narratives(files, pictures, image_pattern="{image_id}.jpg", method=POINTER_STOPS)
        made = (folder / SPLITS_FILE).exists()
        shares: dict[str, Any] = {} if made else {"unseen_people": 0, "val_share": 0.3, "test_share": 0}
        prepare(stream, pictures, folder, PrepareOptions(name="narrations", **shares))

    return DataSet("narrations", "narrations", write, selection_folds=3, folds=3)


def simulated_people(groups: int) -> DataSet:
    """People of the tiny world who look at drawings and describe them: 8 in each group, who share their words.

    Raises:
        InvalidArgumentError: There are no groups.
    """
    if groups < 1:
        raise InvalidArgumentError(f"groups is {groups}; at least 1 is needed")

    def write(folder: Path) -> None:
        rng = np.random.default_rng(0)
        people = sample_viewers(rng, groups=groups, orders_per_group=_ORDERS_PER_GROUP, prefix="p")
        pictures = folder / "pictures"
        pictures.mkdir(exist_ok=True)
        samples = []
        for number in range(_DRAWINGS):
            scene = sample_scene(rng)
            picture = pictures / f"{number}.png"
            _save(render(scene), picture)
            split = TRAIN if number < _TRAINING_DRAWINGS else VAL
            samples += [attrs.evolve(person.sample(scene, rng), image=picture, split=split) for person in people]
        _write(samples, folder)

    return DataSet("simulated-people", f"{_ORDERS_PER_GROUP * groups} simulated people", write)


def _write(samples: Sequence[Sample], folder: Path) -> None:
    """Writes a data set, unless it is there already.

    Raises:
        OutputError: Other samples are there.
    """
    path = folder / SAMPLES
    if not path.exists():
        write_samples(path, samples)
    elif samples_digest(read_samples(path, check_durations=False)) != samples_digest(samples):
        raise OutputError(f"{path} has other samples than are to be written there; give another folder, or delete it")


def _save(picture: Image.Image, path: Path) -> None:
    """Writes a picture, unless one is there already."""
    if not path.exists():
        with atomic_path(path) as temporary:
            picture.save(temporary)


def _image_ids(files: Sequence[Path]) -> set[str]:
    """The images that narrations name; of lines that are no narrations, the reader will say so."""
    found = set()
    for file in files:
        with contextlib.suppress(OSError, UnicodeDecodeError):
            for line in file.read_text(encoding="utf-8").splitlines():
                with contextlib.suppress(ValueError, TypeError, KeyError):
                    found.add(Path(json.loads(line)["image_id"]).name)
    return found


def _part(of: Sequence[str], what: str, samples: Path) -> int:
    if (part := round(_PART * len(of))) < 2:
        raise InvalidSampleError(f"{samples}: a third of {len(of)} {what} are too few to tell apart; use more samples")
    return part


def _name(sample: Sample) -> str:
    """What a sample's photograph is called, in whichever folder it lies."""
    return Path(str(sample.image)).name
