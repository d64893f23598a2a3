"""The paper's data sets, from published layouts to samples: which splits they keep, who is unseen, what is refused."""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs
import pytest

from pydeper import Sample, read_samples
from pydeper.errors import InvalidArgumentError, InvalidSampleError, PydeperError
from pydeper.readers import Placement
from tests.training.reproduction import published
from training.preparation.splits import QUERY, SUPPORT, TEST, TRAIN, VAL, SplitsError
from training.reproduction.prepared import prepared
from training.reproduction.sources import (
    COCO_UNSEEN,
    EXPERIMENTS,
    FIXATION_TABLE,
    FLICKR30K_UNSEEN,
    DataOptions,
    TableOptions,
)


def people(samples: Sequence[Sample], *splits: str) -> set[str]:
    return {str(sample.subject) for sample in samples if sample.split in splits}


def images(samples: Sequence[Sample], *splits: str) -> set[str]:
    return {Path(str(sample.image)).name for sample in samples if sample.split in splits}


def read(experiment: str, data: Path, out: Path, **options: Any) -> list[Sample]:
    return read_samples(prepared(EXPERIMENTS[experiment], data, out, DataOptions(**options)))


def test_coco_is_trained_on_train2017_and_reported_on_val2017(tmp_path, capsys):
    published.write_coco(tmp_path / "coco")
    samples = read("coco-ln", tmp_path / "coco", tmp_path / "out")
    assert people(samples, SUPPORT, QUERY) == set(COCO_UNSEEN)
    assert people(samples, TRAIN, TEST) == {"100", "101"}
    assert images(samples, TEST, QUERY) == {"000000000006.jpg"}
    assert len(images(samples, VAL)) == 1
    printed = capsys.readouterr().out
    assert "Splits of the images: published, 'val' is reported on. Unseen people: 30, 82, " in printed
    assert "(the paper's)." in printed


def test_flickr30k_keeps_its_splits_and_says_that_the_unseen_people_are_not_the_papers(tmp_path, capsys):
    published.write_flickr30k(tmp_path / "flickr30k")
    samples = read("flickr30k-ln", tmp_path / "flickr30k", tmp_path / "out")
    assert len(people(samples, SUPPORT, QUERY)) == 10
    assert images(samples, TEST, QUERY) == {"7.jpg"}
    assert images(samples, VAL) == {"6.jpg"}
    printed = capsys.readouterr().out
    said = "10, chosen by order of hashes. The paper's list numbers its people anew"
    assert said in printed
    assert said in (tmp_path / "out/README.md").read_text()
    named = read("flickr30k-ln", tmp_path / "flickr30k", tmp_path / "named", unseen=("181", "183"))
    assert people(named, SUPPORT, QUERY) == {"181", "183"}


def test_the_released_json_is_reported_on_val_with_the_papers_numbered_people(tmp_path, capsys):
    path = published.write_released(tmp_path)
    samples = read("flickr30k-ln", path, tmp_path / "out")
    assert people(samples, SUPPORT, QUERY) == set(FLICKR30K_UNSEEN)
    assert images(samples, TEST, QUERY) == {"6.jpg"}
    assert VAL in {sample.split for sample in samples}
    assert "(the paper's)." in capsys.readouterr().out
    nobody = read("flickr30k-ln", path, tmp_path / "nobody", unseen=())
    assert not people(nobody, SUPPORT, QUERY)
    own = read("flickr30k-ln", path, tmp_path / "own", splits="own", unseen=("11",))
    assert people(own, SUPPORT, QUERY) == {"11"}
    assert images(own, TEST, QUERY) != {"6.jpg"}


def test_splits_of_our_own_are_an_option(tmp_path):
    published.write_flickr30k(tmp_path / "flickr30k", people=3)
    with pytest.raises(SplitsError, match=r"10 of 3 people cannot be unseen: .* of our own by --splits own"):
        read("flickr30k-ln", tmp_path / "flickr30k", tmp_path / "out")
    source = attrs.evolve(EXPERIMENTS["flickr30k-ln"], unseen_people=1)
    path = prepared(source, tmp_path / "flickr30k", tmp_path / "out", DataOptions(splits="own"))
    assert Counter(sample.split for sample in read_samples(path)) == {TRAIN: 12, VAL: 2, TEST: 2, SUPPORT: 5, QUERY: 1}


def test_kollenda_is_two_tables_and_a_folder_of_images(tmp_path):
    published.write_kollenda(tmp_path / "kollenda")
    samples = read("kollenda", tmp_path / "kollenda", tmp_path / "out", unseen=("k2",))
    assert people(samples, SUPPORT, QUERY) == {"k2"}
    assert people(samples, TRAIN) == {"k0", "k1", "k3"}
    sample = samples[0]
    assert sample.description == "k0 on 0.jpg"
    assert [fixation.duration for fixation in sample.trajectory or ()] == [0.25, 0.25]


def test_files_and_columns_of_kollenda_may_be_called_otherwise(tmp_path):
    data = tmp_path / "kollenda"
    published.write_kollenda(data, columns=("who", "picture", "left", "top", "dur"))
    fixations = (data / "fixations.csv").read_text().replace(",0.2,0.5,", ",20,50,").replace(",0.7,0.5,", ",70,50,")
    (data / "gaze.csv").write_text(fixations)
    (data / "fixations.csv").unlink()
    (data / "captions.csv").rename(data / "said.csv")
    form = attrs.evolve(
        FIXATION_TABLE, subject="who", image="picture", x="left", y="top", duration="dur", units="screen_px"
    )
    tables = TableOptions(
        fixations="gaze.csv",
        captions="said.csv",
        fixation_format=form,
        placement=Placement(rectangle=(0, 0, 100, 100)),
    )
    samples = read("kollenda", data, tmp_path / "out", tables=tables)
    assert len(samples) == 48
    assert [sum(fixation.box[::2]) / 2 for fixation in samples[0].trajectory or ()] == pytest.approx([0.2, 0.7])
    with pytest.raises(InvalidSampleError, match=r"gaze.csv: .*has no column 'x'"):
        read(
            "kollenda",
            data,
            tmp_path / "other",
            tables=attrs.evolve(tables, fixation_format=FIXATION_TABLE, placement=None),
        )


def test_data_are_prepared_once(tmp_path):
    published.write_flickr30k(tmp_path / "flickr30k")
    source = EXPERIMENTS["flickr30k-ln"]
    path = prepared(source, tmp_path / "flickr30k", tmp_path / "out")
    samples = read_samples(path)
    for file in (tmp_path / "flickr30k").glob("*.jsonl"):
        file.unlink()
    assert prepared(source, tmp_path / "flickr30k", tmp_path / "out") == path
    fewer = prepared(attrs.evolve(source, training_samples=3), tmp_path / "flickr30k", tmp_path / "out")
    kept = read_samples(fewer)
    counts = Counter(sample.subject for sample in kept if sample.split == TRAIN)
    assert counts == dict.fromkeys(people(samples, TRAIN), 3)
    assert [s for s in kept if s.split != TRAIN] == [s for s in samples if s.split != TRAIN]


def test_other_options_than_the_data_were_prepared_with_are_refused(tmp_path):
    path = published.write_released(tmp_path)
    out = tmp_path / "out"
    read("flickr30k-ln", path, out, unseen=("1", "2"))
    assert read("flickr30k-ln", path, out, unseen=("1", "2"))
    with pytest.raises(InvalidArgumentError, match=r"was prepared with unseen \['1', '2'\], not None; use another"):
        read("flickr30k-ln", path, out)
    with pytest.raises(InvalidArgumentError, match=r"is prepared, and its splits.json .* so unseen cannot be given"):
        read("flickr30k-ln", out, tmp_path / "again", unseen=("1", "2"))
    (out / "options.json").unlink()  # as `python -m training prepare` leaves it
    with pytest.raises(InvalidArgumentError, match="was prepared with splits None, not 'own'"):
        read("flickr30k-ln", path, out, splits="own")


@pytest.mark.parametrize(
    ("experiment", "options", "message"),
    [
        (
            "coco-ln",
            {"unseen": ("30", "7000")},
            "1 of 2 people are not in the data, such as '7000'; there are '0'",
        ),
        ("coco-ln", {"test_split": "test"}, "no sample is of the source's split 'test'.* report on 'val' instead"),
        ("coco-ln", {"splits": "own", "test_split": "val"}, "test_split 'val' is for published splits"),
        ("coco-ln", {"tables": TableOptions(captions="said.csv")}, "is no table of fixations"),
        ("kollenda", {"splits": "published"}, "kollenda has no published splits; leave out splits 'published'"),
        (
            "kollenda",
            {"tables": TableOptions(captions="said.csv")},
            "nor said.csv; .* by --captions",
        ),
        ("kollenda", {"unseen": ("ana",)}, "fixations.csv: unseen: 1 of 1 people are not in the data, such as 'ana'"),
        ("he", {"unseen": ("1", "2")}, "2 of 2 people cannot be unseen"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_written(tmp_path, experiment, options, message):
    write = {"coco-ln": published.write_coco, "kollenda": published.write_kollenda, "he": published.write_capgaze}
    write[experiment](tmp_path / "data")
    with pytest.raises(PydeperError, match=message):
        read(experiment, tmp_path / "data", tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_the_papers_people_have_to_be_there(tmp_path):
    published.write_coco(tmp_path / "coco", unseen=("30", "82"))
    with pytest.raises(SplitsError, match=r"coco_val.*17 of 19 people are not in the data, such as '37'.*--unseen, or"):
        read("coco-ln", tmp_path / "coco", tmp_path / "out")


def test_a_set_without_the_images_that_are_reported_on(tmp_path):
    published.write_coco(tmp_path / "coco")
    (tmp_path / "coco" / "coco_val_localized_narratives.jsonl").unlink()
    with pytest.raises(SplitsError, match=r"no sample is of the source's split 'val'.*give all files of the set"):
        read("coco-ln", tmp_path / "coco", tmp_path / "out")


def test_a_missing_image_is_named(tmp_path):
    published.write_coco(tmp_path / "coco")
    (tmp_path / "coco" / "images" / "000000000003.jpg").unlink()
    with pytest.raises(InvalidSampleError, match=r"localized_narratives.*jsonl:4: image '000000000003.jpg' is not in"):
        read("coco-ln", tmp_path / "coco", tmp_path / "out")


def test_the_released_json_counts_boxes_as_it_is_told(tmp_path):
    path = published.write_released(tmp_path)
    entries = [entry | {"bboxes": [[10, 10, 20, 20]]} for entry in json.loads(path.read_text())]
    path.write_text(json.dumps(entries))
    with pytest.raises(InvalidSampleError, match=r"released.json\[0\].*say which boxes are given"):
        read("flickr30k-ln", path, tmp_path / "out")
    assert read("flickr30k-ln", path, tmp_path / "out", boxes="pixels")
