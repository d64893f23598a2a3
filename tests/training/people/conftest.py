import pytest


@pytest.fixture(autouse=True)
def small_forests(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forests of a few trees: a whole one takes most of the time of a test that identifies people."""
    monkeypatch.setattr("training.people.classical.TREES", 25)
