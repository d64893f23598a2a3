"""The examples in the docstrings of the reference run, and print what they show."""

import doctest
import inspect
import re
from collections.abc import Iterator
from importlib import import_module
from typing import Any

import pytest

import pydeper
from pydeper import DemonstrationModelWarning, DeperModel
from pydeper.persona.encoder import PersonaEncoder
from tests.support.docs.pages import DOCS, read
from tests.support.hub.server import HubServer

NAMES = re.findall(r"^::: ([\w.]+)$", read(DOCS / "reference/api.md"), flags=re.M)

WITHOUT_EXAMPLE = (
    "pydeper.readers.MISSING_WORDS",  # a constant, which has no docstring at run time
    "pydeper.gaze.FixationMethod",  # a protocol; IDT and FixedWindows are examples of it
    "pydeper.gaze.FixationMethod.stops",
    "pydeper.EncodedImage.check_model",  # called by the models themselves
)

pytestmark = [
    pytest.mark.filterwarnings(f"ignore::{DemonstrationModelWarning.__module__}.{DemonstrationModelWarning.__name__}"),
    # How the Hub's own client sends a large file.
    pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning"),
]


def documented() -> Iterator[tuple[str, str]]:
    """The names of the reference, and those of their public methods and properties, each with its docstring."""
    for name in NAMES:
        module, _, attribute = name.rpartition(".")
        value = getattr(import_module(module), attribute)
        yield name, inspect.getdoc(value) or "" if callable(value) else ""
        if not isinstance(value, type):
            continue
        own = {}
        for parent in reversed(value.__mro__):
            if parent.__module__.startswith("pydeper."):
                own |= vars(parent)
        for member, what in own.items():
            function = what.__func__ if isinstance(what, classmethod | staticmethod) else what
            if not member.startswith("_") and (inspect.isfunction(function) or isinstance(function, property)):
                yield f"{name}.{member}", inspect.getdoc(function) or ""


DOCSTRINGS = dict(documented())
TEXTS = {"pydeper": inspect.getdoc(pydeper) or "", **DOCSTRINGS}
EXAMPLES = {name: doctest.DocTestParser().get_examples(text, name) for name, text in TEXTS.items()}


class HubsAddress(doctest.OutputChecker):
    """Reads the address of the stand-in for the Hub as that of the Hub."""

    def __init__(self, stand_in: str) -> None:
        self._stand_in = stand_in

    def check_output(self, want: str, got: str, optionflags: int) -> bool:
        return super().check_output(want, got.replace(self._stand_in, "https://huggingface.co"), optionflags)


@pytest.fixture(scope="module")
def tiny() -> DeperModel:
    return DeperModel.from_pretrained("tiny")


@pytest.fixture(autouse=True)
def tiny_is_loaded_once(tiny: DeperModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """What an example opens without any settings is open already."""
    tiny.clear_image_cache()
    for kind, loaded in ((DeperModel, tiny), (PersonaEncoder, tiny.persona_encoder)):

        def load(*given: Any, _loaded: Any = loaded, _load: Any = kind.from_pretrained, **settings: Any) -> Any:
            return _loaded if given == ("tiny",) and not settings else _load(*given, **settings)

        monkeypatch.setattr(kind, "from_pretrained", load)


@pytest.mark.parametrize("name", [name for name, examples in EXAMPLES.items() if examples])
def test_the_example_prints_what_it_shows(
    name: str,
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Starting and stopping the servers takes longer than most examples, so only those of repositories have them.
    hub: HubServer | None = request.getfixturevalue("hub_server") if '"org/' in TEXTS[name] else None
    monkeypatch.chdir(tmp_path_factory.mktemp("examples"))
    example = doctest.DocTest(EXAMPLES[name], {"__name__": "__main__"}, name, None, None, TEXTS[name])
    checker = HubsAddress(hub.url) if hub else doctest.OutputChecker()
    report: list[str] = []
    failed, _ = doctest.DocTestRunner(checker, False, doctest.ELLIPSIS).run(example, out=report.append)
    assert not failed, "".join(report)


def test_every_public_function_class_and_method_has_an_example() -> None:
    exceptions = {
        name
        for name, text in DOCSTRINGS.items()
        if name.endswith(("Error", "Warning")) and name != "pydeper.PydeperError"
    }
    without = {name for name, examples in EXAMPLES.items() if not examples} - exceptions
    assert without == set(WITHOUT_EXAMPLE)


def test_an_example_stands_in_a_section_of_its_own() -> None:
    """Where the site shows it as code."""
    for name, text in DOCSTRINGS.items():
        before, _, _ = text.partition("Examples:\n")
        assert ">>>" not in before, name


def test_few_examples_are_not_run() -> None:
    skipped = [
        name
        for name, examples in EXAMPLES.items()
        for example in examples
        if example.options.get(doctest.OPTIONFLAGS_BY_NAME["SKIP"])
    ]
    assert skipped == ["pydeper.VLLMServers"]  # needs servers
