"""The built-in model, two people, and a gateway for the tests that change nothing of it."""

from collections.abc import Iterator

import pytest

from pydeper import DeperModel, Persona
from tests.pydeper.serve.running import Gateway, make_personas, running_gateway


@pytest.fixture(scope="session")
def tiny() -> DeperModel:
    return DeperModel.from_pretrained("tiny", device="cpu", threads=1, image_cache=4)


@pytest.fixture(scope="session")
def people(tiny: DeperModel) -> dict[str, Persona]:
    return make_personas(tiny)


@pytest.fixture(scope="module")
def gateway(tiny: DeperModel, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with running_gateway(tiny, tmp_path_factory.mktemp("gateway"), max_bytes=200_000, max_pixels=500_000) as running:
        yield running
