"""Options of describing and loading, and what the reference page shows of them."""

import re
from pathlib import Path

import pytest

from pydeper import (
    BundleError,
    DeperModel,
    InvalidArgumentError,
    Persona,
)
from pydeper.bundle.layout import BUILTIN
from tests.support.paths import ROOT

DEMO = BUILTIN / "tiny" / "demo"
SHORT = {"max_new_tokens": 8}


def test_repetition_is_penalised_wherever_it_can_be_asked_for(tiny: DeperModel, ana: Persona) -> None:
    scene, options = DEMO / "scene.png", {"repetition_penalty": 3.0, "max_new_tokens": 24}
    penalised = tiny.describe(scene, ana, **options)
    assert penalised != tiny.describe(scene, ana, max_new_tokens=24)
    words = [word.strip(",.") for word in penalised.split()]
    plain = [word.strip(",.") for word in tiny.describe(scene, ana, max_new_tokens=24).split()]
    assert len(set(words)) / len(words) > len(set(plain)) / len(plain)
    assert "".join(tiny.stream(scene, ana, **options)) == penalised
    assert tiny.describe_each(scene, [ana], **options) == [penalised]
    assert tiny.describe_batch([(scene, ana)], **options) == [penalised]


def test_the_reference_page_shows_what_works(
    tiny: DeperModel, ana: Persona, ben: Persona, capsys: pytest.CaptureFixture[str]
) -> None:
    page = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")
    names = {"DeperModel": DeperModel, "ana": ana, "ben": ben, "scene": DEMO / "scene.png"}
    for block in re.findall(r"^```python\n(.*?)^```$", page, flags=re.S | re.M):
        exec(block, names)
    assert names["texts"] == [tiny.describe(names["scene"], who) for who in (ana, ben, None)]
    assert names["text"] == names["texts"][0]
    assert "auto -> " in capsys.readouterr().out


def test_a_precision_is_one_that_the_model_comes_in(pictures: list[Path], tiny: DeperModel) -> None:
    there = tiny.report().vlm["precision"].split()[0]
    chosen = DeperModel.from_pretrained("tiny", threads=1, precision=there)
    assert chosen.describe(pictures[0], **SHORT) == tiny.describe(pictures[0], **SHORT)
    missing = next(precision for precision in ("int4", "int8") if precision != there)
    with pytest.raises(BundleError, match=f"does not hold the VLM in {missing}, only in {there}"):
        DeperModel.from_pretrained("tiny", precision=missing)
    with pytest.raises(InvalidArgumentError, match="precision: must be one of 'fp32', 'fp16', 'int8', 'int4'"):
        DeperModel.from_pretrained("tiny", precision="int2")
