"""The samples of an experiment, in subsets."""

import numpy as np

from training.data.encoded import EncodedDataset
from training.people.experiment import subset


def test_a_subset_keeps_the_numbers_of_people_and_images():
    data = EncodedDataset(
        samples=["a", "b", "c"],  # type: ignore[list-item] – never looked into
        origins=["sample a", "sample b", "sample c"],  # type: ignore[list-item] – never looked into
        image_of=np.array([0, 1, 1]),
        image_tokens=None,  # type: ignore[arg-type] – never looked into
        descriptions=["x", None, "z"],
        subject_of=np.array([2, 0, 2]),
        subjects=("ana", "ben", "cem"),
    )
    part = subset(data, np.array([False, True, True]))
    assert (part.samples, part.descriptions) == (["b", "c"], [None, "z"])
    assert part.origins == ["sample b", "sample c"]
    assert (part.image_of.tolist(), part.subject_of.tolist()) == ([1, 1], [0, 2])
    assert part.subjects == data.subjects
