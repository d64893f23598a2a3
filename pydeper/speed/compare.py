"""The settings of a model measured in turn on this machine, and which of them to take."""

import importlib.util
import os
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context
from typing import get_args

import attrs

from pydeper.bundle.bundle import Bundle, open_bundle
from pydeper.bundle.config import Precision
from pydeper.bundle.vlm_files import precisions_of
from pydeper.errors import PydeperError
from pydeper.runtime.target import Runtime
from pydeper.speed.machine import cores, cpu, has_large_pages
from pydeper.speed.measure import Settings, Speed, measure_speed

LARGE_PAGES = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
"""What has a process allocate memory in large pages (Linux, glibc 2.35 on)."""

DESCRIPTION_TOKENS = 64
"""The length of the description that settings are compared by."""

_WORTH_IT = 0.95  # of the time with simpler settings: less than that is not told from chance


@attrs.frozen
class Measured:
    """One choice of settings, and how it fared.

    Attributes:
        settings: The settings.
        speed: What the model took, or None where it could not be measured.
        failure: Why it could not; "" where it could.
    """

    settings: Settings
    speed: Speed | None
    failure: str = ""


@attrs.frozen
class Comparison:
    """What was measured, and what to take.

    Attributes:
        model: The model: as it was named, or its own name.
        cpu: The processor, with the instructions that matter.
        cores: How many cores this process may use.
        measured: In the order in which they were measured.
        skipped: Settings for which there was no time.
        best: The settings to take; None where the model ran with none.
    """

    model: str
    cpu: str
    cores: int
    measured: tuple[Measured, ...]
    skipped: tuple[Settings, ...]
    best: Settings | None


def compare_settings(
    model: str,
    *,
    seconds: float = 50,
    tokens: int = 32,
    progress: Callable[[Settings], None] = lambda settings: None,
) -> Comparison:
    """Measures a model on every runtime that is installed, then on the fastest of them with other settings.

    Each choice of settings has a process of its own. Files are fetched and verified before the clock starts.

    Args:
        model: As `DeperModel.from_pretrained` takes it.
        seconds: After so long no further choice of settings is begun; each runtime is measured once in any case.
        tokens: How many tokens are generated at most in each description.
        progress: Is called with settings before they are measured.

    Raises:
        BundleError, RuntimeMissingError, InvalidArgumentError: See `pydeper.bundle.bundle.open_bundle`.
    """
    opened = open_bundle(model)
    default = opened.target.runtime
    others = [runtime for runtime in get_args(Runtime) if runtime != default and importlib.util.find_spec(runtime)]
    measured: list[Measured] = []
    skipped: list[Settings] = []
    began = time.perf_counter()
    longest = 0.0

    def measure(settings: Settings) -> None:
        nonlocal longest
        progress(settings)
        started = time.perf_counter()
        measured.append(_measure_apart(model, settings, tokens, seconds / 8))
        longest = max(longest, time.perf_counter() - started)

    for runtime in (default, *others):
        measure(Settings(runtime))
    if fastest := _best(measured):
        for change in _changes(opened, fastest):
            if time.perf_counter() - began + longest > seconds:
                skipped.append(change)
            else:
                measure(change)
    return Comparison(model, cpu(), cores(), tuple(measured), tuple(skipped), _best(measured))


def _changes(opened: Bundle, fastest: Settings) -> Iterator[Settings]:
    """The settings that are tried beside the fastest runtime's own: one change each."""
    if cores() > 1:
        yield attrs.evolve(fastest, threads=max(cores() // 2, 1))
    if has_large_pages():
        yield attrs.evolve(fastest, large_pages=True)
    for precision in _precisions(opened, fastest.runtime):
        yield attrs.evolve(fastest, precision=precision)


def _precisions(opened: Bundle, runtime: Runtime) -> list[Precision]:
    """The further precisions that are on this machine; of a VLM on the Hub, the files of one alone are."""
    if opened.config.vlm.is_on_hub or opened.revision is not None:
        return []
    names = [path.relative_to(opened.vlm_folder).as_posix() for path in opened.vlm_folder.rglob("*")]
    return [precision for precision in precisions_of(names, runtime) if precision != opened.precision]


def _measure_apart(model: str, settings: Settings, tokens: int, seconds: float) -> Measured:
    """Measures in a process of its own; whatever happens to that is told and raises nothing."""
    with (
        _environment(LARGE_PAGES if settings.large_pages else {}),
        ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool,
    ):
        try:
            running = pool.submit(measure_speed, model, settings, tokens=tokens, seconds=seconds)
            return Measured(settings, running.result())
        except BrokenProcessPool:
            return Measured(settings, None, "its process was ended from outside, as happens when memory runs out")
        except PydeperError as error:
            return Measured(settings, None, str(error))


def _best(measured: list[Measured]) -> Settings | None:
    """The settings with which a description takes the least time; simpler ones where that is as good as equal.

    Another precision is another description as well, so none is taken for its speed alone.
    """
    best: Measured | None = None
    for each in measured:
        if each.speed is None or each.settings.precision is not None:
            continue
        seconds = each.speed.seconds_for(DESCRIPTION_TOKENS)
        if best is None or best.speed is None or seconds < _WORTH_IT * best.speed.seconds_for(DESCRIPTION_TOKENS):
            best = each
    return best.settings if best else None


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Sets environment variables for the processes that are started meanwhile."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
