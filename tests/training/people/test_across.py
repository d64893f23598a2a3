"""`python -m training identify-across`: the data sets that it makes, and its one table."""

import json
import re
from collections import Counter

import pytest
from PIL import Image

from pydeper import read_samples
from tests.support.training_run import SHORTEST_IDENTIFICATION, write_drawn_samples
from tests.training.reproduction.published import narration, write_lines
from training.__main__ import main
from training.outputs import OutputError
from training.people.across.data_sets import narrations, parts, simulated_people


def write(data_set, folder):
    folder.mkdir(exist_ok=True)
    data_set.write(folder)
    return read_samples(folder / "samples.jsonl")


@pytest.fixture
def narrated(tmp_path):
    def told(image, person):
        stops = [{"x": 0.1 * (image + i // 9), "y": 0.1 * person, "t": 0.1 * i} for i in range(9 + 9 * (image % 2))]
        caption = f"{person} on {image // 2}"  # as of frames of one video
        return narration("flickr30k_train", image, person) | {"traces": [stops], "caption": caption}

    path = tmp_path / "narrations.jsonl"
    write_lines(path, (told(image, person) for image in range(9) for person in (7, 8, 9)))
    return path


def test_parts_are_a_third_of_the_people_or_of_the_training_photographs(tmp_path):
    write_drawn_samples(tmp_path / "all", people=6, scenes=9, training_scenes=7)
    by_people, by_photographs = parts(tmp_path / "all/samples.jsonl")
    of_people, of_photographs = write(by_people, tmp_path / "people"), write(by_photographs, tmp_path / "photographs")
    assert (by_people.title, by_photographs.title) == ("2 of the 6 people", "2 of the 7 training photographs")
    assert len(Counter(sample.subject for sample in of_people)) == 2
    assert Counter(sample.split for sample in of_people) == {"train": 2 * 7, "val": 2 * 2}
    assert Counter(sample.split for sample in of_photographs) == {"train": 6 * 2, "val": 6 * 2}
    assert len({str(sample.image) for sample in of_photographs if sample.split == "train"}) == 2


def test_a_third_has_to_be_two_at_least(tmp_path, capsys):
    write_drawn_samples(tmp_path / "all")
    asked = ["identify-across", "--data", str(tmp_path / "all"), "--out", str(tmp_path / "out")]
    assert main(asked) == 2
    assert "a third of 3 people are too few to tell apart; use more samples" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_simulated_people_look_at_the_same_drawings(tmp_path):
    samples = write(simulated_people(1), tmp_path / "simulated")
    assert Counter(sample.split for sample in samples) == {"train": 8 * 18, "val": 8 * 6}
    assert set(Counter(str(sample.image) for sample in samples).values()) == {8}
    assert len({sample.description for sample in samples if "/0.png" in str(sample.image)}) > 1


def test_a_drawing_that_is_half_written_is_written_again(tmp_path, monkeypatch):
    def interrupted(picture, path, **_):
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Image.Image, "save", interrupted)
        with pytest.raises(KeyboardInterrupt):
            write(simulated_people(1), tmp_path / "simulated")
    assert not list((tmp_path / "simulated/pictures").iterdir())
    samples = write(simulated_people(1), tmp_path / "simulated")
    assert all(sample.open_image().size for sample in samples)


def test_narrations_need_no_photographs(tmp_path, narrated):
    (tmp_path / "narrations/images").mkdir(parents=True)
    (tmp_path / "narrations/images/0.jpg").write_bytes(b"mine")
    samples = write(narrations([narrated]), tmp_path / "narrations")
    assert (tmp_path / "narrations/images/0.jpg").read_bytes() == b"mine"
    assert Counter(sample.subject for sample in samples) == dict.fromkeys("789", 9)
    assert {sample.split for sample in samples} == {"train", "val"}


@pytest.mark.parametrize("line", ["{", "[]", '{"image_id": 3}', '{"image_id": "../../elsewhere"}'])
def test_what_is_no_narration_is_named(tmp_path, narrated, line, capsys):
    narrated.write_text(f"{narrated.read_text()}\n{line}\n")
    asked = ["identify-across", "--narrations", str(narrated), "--groups", "0", "--out", str(tmp_path / "out")]
    assert main(asked) == 2
    assert f"{narrated}:28" in capsys.readouterr().err
    assert {path.parent.name for path in tmp_path.rglob("elsewhere*")} <= {"images"}


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ("0", "there is no data set to measure on; name one with --data, --narrations or --groups"),
        ("-1", "groups is -1; at least 1 is needed"),
    ],
)
def test_no_data_set(tmp_path, groups, message, capsys):
    assert main(["identify-across", "--groups", groups, "--out", str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_other_samples_are_not_replaced(tmp_path):
    write_drawn_samples(tmp_path / "all", people=6, scenes=7, training_scenes=6)
    by_people, by_photographs = parts(tmp_path / "all/samples.jsonl")
    written = write(by_people, tmp_path / "part")
    by_people.write(tmp_path / "part")  # again
    with pytest.raises(OutputError, match="has other samples than"):
        by_photographs.write(tmp_path / "part")
    assert read_samples(tmp_path / "part/samples.jsonl") == written


def test_one_table_of_all_data_sets(config_file, tmp_path, narrated):
    pytest.importorskip("sklearn")
    changes = [word for change in SHORTEST_IDENTIFICATION for word in ("--set", change)]
    asked = ["identify-across", "--config", str(config_file), "--narrations", str(narrated), "--groups", "0"]
    for _ in range(2):  # the second time, from what the first has kept
        assert main([*asked, "--out", str(tmp_path / "out"), *changes]) == 0
    written = json.loads((tmp_path / "out/results/identification-across.json").read_text())
    assert list(written["results"]) == [f"narrations, {modality}" for modality in ("text + gaze", "text", "gaze")]
    for figures in written["results"].values():
        for samples in ("1 sample", "most samples"):
            deper, classical, difference = (
                figures[f"{system}, {samples}"]["value"] for system in ("DEPER", "classical", "difference")
            )
            assert difference == pytest.approx(deper - classical)
    about = written["facts"]["narrations"]
    sizes, repeated = re.findall(r"held out (.+); chosen: .+; held-out descriptions .+: (\d+)", about)[0]
    assert about.startswith("3 people, 3 folds over photographs")
    assert sum(int(fold.split(" / ")[1]) for fold in sizes.split(" + ")) == 27
    # A description of a pair is in the training too, unless both photographs of the pair are held out.
    assert 0 < int(repeated) <= 24
    both = written["results"]["narrations, text + gaze"]
    behind = any(both[f"difference, {samples}"]["value"] < 0 for samples in ("1 sample", "most samples"))
    assert written["title"].endswith("behind a classical system in: narrations") == behind
