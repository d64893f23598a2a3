"""Many threads give what one gives, and whoever leaves early ends the work."""

import asyncio
import gc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pydeper import (
    DeperModel,
    Persona,
)
from tests.pydeper.model.in_apps.watched import watch

SHORT = {"max_new_tokens": 8}


def test_threads_give_what_one_thread_gives(
    cached: DeperModel, ana: Persona, ben: Persona, pictures: list[Path]
) -> None:
    """More images than the cache keeps, so that encoding, keeping and letting go all happen at once."""
    jobs = [(image, who) for image in pictures for who in (ana, ben, None)] * 2
    one_by_one = [cached.describe(*job, **SHORT) for job in jobs]
    cached.clear_image_cache()

    def work(job: tuple[Path, Persona | None]) -> str:
        return "".join(cached.stream(*job, **SHORT)) if job[1] is ben else cached.describe(*job, **SHORT)

    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(work, jobs)) == one_by_one
        batches = [pool.submit(cached.describe_batch, jobs[start::3], **SHORT) for start in range(3)]
        assert [batch.result() for batch in batches] == [one_by_one[start::3] for start in range(3)]


@pytest.mark.parametrize("how", ["close", "drop"])
def test_a_stream_that_is_left_ends_its_work_and_frees_its_memory(
    tiny: DeperModel, ana: Persona, pictures: list[Path], how: str
) -> None:
    watched = watch(tiny)
    pieces = tiny.stream(pictures[0], ana)
    assert watched.encoded == []
    next(pieces), next(pieces)
    assert watched.alive() == 1
    if how == "close":
        pieces.close()
    else:
        del pieces
    assert watched.alive() == 0
    assert watched.steps == 2


def test_a_cancelled_task_ends_its_work_and_frees_its_memory(
    tiny: DeperModel, ana: Persona, pictures: list[Path]
) -> None:
    watched = watch(tiny)
    read: list[str] = []

    async def consume(enough: asyncio.Event) -> None:
        async for piece in tiny.astream(pictures[0], ana):
            read.append(piece)
            if len(read) == 2:
                enough.set()

    async def cancel() -> None:
        enough = asyncio.Event()
        task = asyncio.create_task(consume(enough))
        await enough.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancel())  # waits for the threads of its loop
    gc.collect()
    assert watched.alive() == 0
    assert len(read) == 2
    assert watched.steps <= 3
