"""The built-in model as an app loads it, two people whom it knows, and pictures."""

from pathlib import Path

import pytest

import pydeper
from pydeper import DeperModel, Persona
from pydeper.bundle.layout import BUILTIN
from tests.pydeper.model.in_apps.watched import load_tiny

DEMO = BUILTIN / "tiny" / "demo"


@pytest.fixture(scope="session")
def tiny() -> DeperModel:
    """Without a cache, so that tests count what is encoded for themselves."""
    return load_tiny(image_cache=0)


@pytest.fixture
def cached() -> DeperModel:
    return load_tiny(image_cache=2)


@pytest.fixture(scope="session")
def ana(tiny: DeperModel) -> Persona:
    return Persona.from_samples(pydeper.read_samples(DEMO / "ana.jsonl"), model=tiny)


@pytest.fixture(scope="session")
def ben(tiny: DeperModel) -> Persona:
    return Persona.from_samples(pydeper.read_samples(DEMO / "ben.jsonl"), model=tiny)


@pytest.fixture(scope="session")
def pictures() -> list[Path]:
    return [DEMO / name for name in ("scene.png", "ana-1.png", "ana-2.png", "ben-1.png")]
