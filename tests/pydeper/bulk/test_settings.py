"""Two runs with unlike descriptions have unlike settings, and say in what."""

import json

import pytest

from pydeper import DeperModel
from pydeper.bulk.settings import RunSettings
from pydeper.errors import InvalidArgumentError


def test_settings_are_read_as_they_were_written(model, ana, ben, tmp_path):
    settings = RunSettings.of(model, {"ana": ana, "日本": ben}, {"max_new_tokens": 4, "temperature": 0.5, "seed": 3})
    settings.write(tmp_path / "run.json")
    assert RunSettings.read(tmp_path / "run.json") == settings
    assert settings.differences(settings) == []
    assert settings.options == RunSettings.of(model, {}, {"max_new_tokens": 4, "seed": 3}).options | {
        "temperature": 0.5
    }
    assert "subject_embedding" not in (tmp_path / "run.json").read_text()


def test_each_difference_is_named(model, other_folder, ana, ben):
    settings = RunSettings.of(model, {"ana": ana, "ben": ben}, {"max_new_tokens": 4})
    other = RunSettings.of(model, {"ana": ben, "cem": ana}, {"max_new_tokens": 5, "style": "caption"})
    assert settings.differences(other) == [
        "style 'caption' there, 'description' here",
        "max_new_tokens 5 there, 4 here",
        "persona 'cem' is in those alone",
        "persona 'ben' is not in those",
        "persona 'ana' was another one",
    ]
    (model_id, files) = RunSettings.of(model, {}, {}).differences(
        RunSettings.of(DeperModel.from_pretrained(other_folder, threads=1), {}, {})
    )
    assert model_id == "model id 'other' there, 'small' here"
    assert files.startswith("model files 'sha256:")


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("", "not valid JSON"),
        ("[]", "must be an object"),
        ("{}", "format_version"),
        (json.dumps({"format_version": 2}), "format_version"),
        (json.dumps({"format_version": 1, "model": {}, "options": {}}), "model, options and personas"),
    ],
)
def test_damaged_settings_are_an_error(tmp_path, content, complaint):
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(InvalidArgumentError, match=complaint) as error:
        RunSettings.read(tmp_path / "run.json")
    assert "run.json" in str(error.value)
    assert "name another output" in str(error.value)
