"""The paper's data sets in miniature, in the layouts that they were published in."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from tests.support.images import random_image
from training.reproduction.sources import COCO_UNSEEN

KOLLENDA_COLUMNS = ("subject", "image", "x", "y", "duration")


def write_images(folder: Path, names: Iterable[str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(names):
        random_image(56, 56, number).save(folder / name)


def narration(dataset_id: str, image_id: int, person: int | str) -> dict[str, Any]:
    return {
        "dataset_id": dataset_id,
        "image_id": str(image_id),
        "annotator_id": int(person),
        "caption": f"{person} on {image_id}",
        "timed_caption": [],
        "traces": [[{"x": 0.1 * i, "y": 0.5, "t": 0.2 * i} for i in range(9)]],
    }


def write_lines(path: Path, records: Iterable[dict[str, Any]]) -> None:
    path.write_text("\n".join(map(json.dumps, records)), encoding="utf-8")


def write_coco(folder: Path, seen: int = 2, unseen: Iterable[str] = COCO_UNSEEN) -> None:
    """Everybody describes six images of train2017, and one of val2017."""
    write_images(folder / "images", (f"{number:0>12}.jpg" for number in range(7)))
    people = [*unseen, *(str(100 + number) for number in range(seen))]
    for name, dataset_id, images in (
        ("coco_train_localized_narratives-00000-of-00004.jsonl", "mscoco_train2017", range(6)),
        ("coco_val_localized_narratives.jsonl", "mscoco_val2017", range(6, 7)),
    ):
        write_lines(folder / name, (narration(dataset_id, number, who) for who in people for number in images))


def write_flickr30k(folder: Path, people: int = 12) -> None:
    """Everybody describes six images of train, one of val and one of test."""
    write_images(folder / "images", (f"{number}.jpg" for number in range(8)))
    for split, images in {"train": range(6), "val": range(6, 7), "test": range(7, 8)}.items():
        lines = (narration(f"flickr30k_{split}", number, 180 + who) for who in range(people) for number in images)
        write_lines(folder / f"flickr30k_{split}_localized_narratives.jsonl", lines)


def write_kollenda(folder: Path, people: int = 4, images: int = 12, columns: Iterable[str] = KOLLENDA_COLUMNS) -> None:
    """Two fixations of everybody on every image, and a caption."""
    write_images(folder / "images", (f"{number}.jpg" for number in range(images)))
    seen = [(f"k{who}", f"{number}.jpg") for who in range(people) for number in range(images)]
    rows = [f"{who},{image},{x},0.5,250" for who, image in seen for x in (0.2, 0.7)]
    (folder / "fixations.csv").write_text("\n".join([",".join(columns), *rows]))
    captions = [f"{who},{image},{who} on {image}" for who, image in seen]
    (folder / "captions.csv").write_text("\n".join(["subject,image,description", *captions]))


def write_capgaze(folder: Path, people: int = 2, images: int = 10) -> None:
    write_images(folder / "images", (f"{number}.jpg" for number in range(images)))
    times = [0.02 * i for i in range(20)]
    gaze = {"time_stamp": times, "left_eye": [(0.5, 0.5)] * 20, "right_eye": [None] * 20, "dominant_eye": 0}
    for person in range(1, people + 1):
        gazes = folder / "gaze_converted_2" / str(person) / "gaze"
        texts = folder / "transcribed_text" / str(person)
        for made in (gazes, texts):
            made.mkdir(parents=True)
        for number in range(images):
            np.save(gazes / f"{number}.npy", np.array(gaze, dtype=object), allow_pickle=True)
            (texts / f"{number}.json").write_text(json.dumps({"text": f"{person} on {number}"}))


def write_released(folder: Path, people: int = 12) -> Path:
    """The JSON of the released code: six images of train and one of val, with people who are numbered."""
    write_images(folder / "images", (f"{number}.jpg" for number in range(7)))
    entries = [
        {
            "name": f"{number}.jpg",
            "caption": f"{who} on {number}",
            "subject": who,
            "subject_name": f"annotator {1000 - who}",
            "split": "val" if number == 6 else "train",
            "X": [0.3],
            "Y": [0.3],
            "T": [0.25],
            "bboxes": [[0.2, 0.2, 0.4, 0.4]],
        }
        for who in (*range(people), 32)
        for number in range(7)
    ]
    path = folder / "released.json"
    path.write_text(json.dumps(entries))
    return path
