"""The texts of the capture page, in every language."""

import json
import re
from pathlib import Path

import pydeper.capture

PAGE = Path(pydeper.capture.__file__).parent / "page"
TEXTS = json.loads((PAGE / "texts.json").read_text("utf-8"))


def test_every_language_has_every_text_and_the_same_places_to_fill():
    english = TEXTS["en"]
    for texts in TEXTS.values():
        assert texts.keys() == english.keys()
        for part in english:
            assert texts[part].keys() == english[part].keys()
            for name, text in texts[part].items():
                assert text.strip()
                assert set(re.findall(r"{\w+}", text)) == set(re.findall(r"{\w+}", english[part][name])), name


def test_every_text_is_used_and_every_text_that_is_used_is_there():
    page, script = (PAGE / "index.html").read_text("utf-8"), (PAGE / "app.js").read_text("utf-8")
    for name in TEXTS["en"]["page"]:
        assert f'data-text="{name}"' in page or re.search(rf'"{name}"|texts\.{name}\b', script), name
    used = set(re.findall(r'data-text="(\w+)"', page))
    used |= set(re.findall(r'\b(?:say|text)\("(\w+)"', script)) | set(re.findall(r"this\.texts\.(\w+)", script))
    assert used <= TEXTS["en"]["page"].keys()


def test_the_widgets_own_texts_are_the_english_ones():
    script = (PAGE / "pydeper-capture.js").read_text("utf-8")
    block = re.search(r"export const defaultTexts = {(.*?)\n};", script, re.DOTALL)[1]
    assert dict(re.findall(r'^  (\w+): "(.*)",$', block, re.MULTILINE)) == TEXTS["en"]["widget"]
    for name in TEXTS["en"]["widget"]:
        assert re.search(rf"exts\.{name}\b", script), name
