"""What holds for every test, and the fixtures that tests of several folders share."""

import signal
from collections.abc import Iterator

import pytest
import torch
from hypothesis import HealthCheck, settings

pytest_plugins = [
    "tests.support.small_vlm",
    "tests.support.small_bundle",
    "tests.support.hub.server",
    "tests.support.training_run",
]

torch.set_num_threads(1)
_FIXTURE_SEED, _TEST_SEED = 1_000_001, 1_000_002  # unlike those that tests choose: what is to differ must not coincide

# The same examples in every run, and no judgement of how long they take, which says something about the machine.
# `--hypothesis-profile search` looks for further ones.
settings.register_profile("pydeper", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("search", settings.get_profile("pydeper"), derandomize=False)
settings.load_profile("pydeper")


@pytest.fixture(scope="session", autouse=True)
def nothing_of_the_users(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Tests, and the processes that they start, neither follow the user's settings nor touch the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("PYDEPER_MODEL", raising=False)
        patch.delenv("PYDEPER_RUNTIME", raising=False)
        patch.setenv("PYDEPER_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session", autouse=True)
def ctrl_c_is_heard() -> None:
    """A shell without job control starts what runs in the background deaf to Ctrl-C, which processes pass on."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)
def pytest_fixture_setup() -> None:
    """Numbers that a fixture draws do not depend on what ran before the first test that wanted it."""
    torch.manual_seed(_FIXTURE_SEED)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call() -> None:
    """Nor do those that a test draws."""
    torch.manual_seed(_TEST_SEED)
