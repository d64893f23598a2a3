"""What fails is tried again where it can be, and explained where it cannot."""

import asyncio
import socket
from pathlib import Path
from typing import Any

import pytest

from pydeper import DeperModel, Persona, VLLMError, VLLMUnreachableError
from tests.pydeper.vlm.vllm.conftest import Opened
from tests.support.vllm.server import PATIENCE, Fault, VLLMServer

MENDED = {
    "429": Fault(status=429, error={"message": "busy"}, headers={"Retry-After": "0"}),
    "429 until a date": Fault(status=429, headers={"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}),
    "429 with nonsense": Fault(status=429, headers={"Retry-After": "soon"}),
    "502": Fault(status=502, error="<html>Bad gateway</html>"),
    "503": Fault(status=503),
    "504": Fault(status=504),
    "dropped before the answer": Fault(how="drop"),
    "dropped before the first token": Fault(after=0),
    "ended before the first event": Fault(how="end"),
    "malformed first event": Fault(how="malformed"),
    "malformed second event": Fault(after=0, how="malformed"),
    "slow first byte": Fault(how="wait"),
}
WITHIN = {
    "dropped": (Fault(after=2), "the connection broke"),
    "ended": (Fault(after=2, how="end"), "its answer broke off before the description was complete"),
    "malformed": (Fault(after=2, how="malformed"), "it sent a malformed event: not valid JSON"),
    "silent": (Fault(after=2, how="wait"), "it was silent for 1 s"),
}


def patience(fault: Fault) -> dict[str, Any]:
    return {"timeout": 1} if fault.how == "wait" else {}


@pytest.mark.parametrize("fault", MENDED.values(), ids=MENDED)
def test_a_failure_before_the_first_token_is_mended(
    server: VLLMServer, opened: Opened, local: DeperModel, people: list[Persona], pictures: list[Path], fault: Fault
) -> None:
    model = opened(server, **patience(fault))
    expected = local.describe(pictures[0], people[0])
    server.script = [fault, fault]
    assert model.describe(pictures[0], people[0]) == expected
    server.script = [fault]
    assert "".join(model.stream(pictures[0], people[0])) == expected
    assert len(server.completions) == 5


@pytest.mark.parametrize(("fault", "reason"), WITHIN.values(), ids=WITHIN)
def test_a_failure_within_a_stream_is_told_and_not_mended(
    server: VLLMServer,
    opened: Opened,
    local: DeperModel,
    people: list[Persona],
    pictures: list[Path],
    fault: Fault,
    reason: str,
) -> None:
    model = opened(server, **patience(fault))
    expected = local.describe(pictures[0], people[0])
    server.script = [fault]
    pieces: list[str] = []
    with pytest.raises(VLLMUnreachableError, match=rf"{server.address}: {reason}.*, after 2 tokens; .*call again"):
        pieces.extend(model.stream(pictures[0], people[0]))
    assert expected.startswith("".join(pieces))
    assert pieces
    assert len(server.completions) == 1
    server.script = [fault]  # of `describe` nothing has been given out yet
    assert model.describe(pictures[0], people[0]) == expected
    assert len(server.completions) == 3


def test_what_keeps_failing_is_told_after_all_retries(
    server: VLLMServer, opened: Opened, people: list[Persona], pictures: list[Path]
) -> None:
    model = opened(server, retries=2)
    server.script = [Fault(status=503)] * 6
    told = rf"no vLLM server went through with it \(3 tries\): {server.address}: it is not available \(503\)\. Check"
    with pytest.raises(VLLMUnreachableError, match=told):
        model.describe(pictures[0], people[0])
    with pytest.raises(VLLMUnreachableError, match=told):
        list(model.stream(pictures[0], people[0]))
    assert len(server.completions) == 6
    assert model.describe(pictures[0], people[0])


def test_a_server_that_asks_to_wait_for_long_is_not_waited_for(
    server: VLLMServer, opened: Opened, people: list[Persona], pictures: list[Path]
) -> None:
    model = opened(server)
    server.script = [Fault(status=429, headers={"Retry-After": "3600"})]
    with pytest.raises(VLLMUnreachableError, match=r"all ask to wait, the first for 3\d\d\d s.*too many requests"):
        model.describe(pictures[0], people[0])
    assert len(server.completions) == 1
    assert "set aside: it has too many requests (429)" in model.report().vlm["server"]


def test_one_of_a_batch_fails_and_ends_the_others(
    server: VLLMServer, opened: Opened, people: list[Persona], pictures: list[Path]
) -> None:
    model = opened(server)
    server.script = [Fault(how="wait"), Fault(status=400, error={"message": "no such thing"})]
    server.hold = 2
    with pytest.raises(VLLMError, match=r'pairs 1, 2 of 2: .*refused the request \(400\); it says: "no such thing"'):
        model.describe_batch([(pictures[0], people[0]), (pictures[0], people[1])])
    assert server.left.wait(PATIENCE)


@pytest.mark.parametrize("after", [None, 2], ids=["before the first byte", "within the stream"])
def test_cancelling_closes_the_request(
    server: VLLMServer, opened: Opened, people: list[Persona], pictures: list[Path], after: int | None
) -> None:
    model = opened(server)
    server.script = [Fault(after=after, how="wait")]

    async def cancel() -> None:
        async def consume() -> None:
            async for _ in model.astream(pictures[0], people[0]):
                pass

        task = asyncio.create_task(consume())
        assert await asyncio.to_thread(server.waiting.wait, PATIENCE)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancel())
    assert server.left.wait(PATIENCE)


@pytest.mark.parametrize("how", ["close", "drop"])
def test_a_stream_that_is_left_closes_the_request(
    server: VLLMServer, opened: Opened, people: list[Persona], pictures: list[Path], how: str
) -> None:
    model = opened(server)
    server.script = [Fault(after=2, how="wait")]
    pieces = model.stream(pictures[0], people[0])
    assert server.completions == []  # nothing is asked for ahead
    next(pieces)
    if how == "close":
        pieces.close()
    else:
        del pieces
    assert server.left.wait(PATIENCE)


def test_no_more_requests_are_open_than_there_may_be_and_connections_are_used_again(
    server: VLLMServer, opened: Opened, local: DeperModel, people: list[Persona], pictures: list[Path]
) -> None:
    model = opened(server, max_concurrency=3)
    server.connections = 0
    server.hold = 3
    pairs = [(picture, persona) for picture in pictures for persona in people] * 2
    assert model.describe_batch(pairs) == local.describe_batch(pairs)
    assert server.most_at_once == 3
    assert server.connections <= 3


def test_nobody_is_there(opened: Opened) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
        with pytest.raises(
            VLLMUnreachableError, match=rf"none can be reached.*{address}: it cannot be reached .*Check"
        ):
            opened(address)


class TestSeveralServers:
    def test_the_work_is_divided(
        self,
        server: VLLMServer,
        second: VLLMServer,
        opened: Opened,
        local: DeperModel,
        people: list[Persona],
        pictures: list[Path],
    ) -> None:
        model = opened(server, second, max_concurrency=4)
        server.hold = second.hold = 2
        pairs = [(picture, persona) for picture in pictures for persona in people]
        assert model.describe_batch(pairs) == local.describe_batch(pairs)
        assert server.most_at_once >= 2
        assert second.most_at_once >= 2
        assert len(server.completions) + len(second.completions) == len(pairs)
        assert [*model.report().vlm] == ["server 1", "server 2"]

    @pytest.mark.parametrize("fault", [Fault(status=503), Fault(how="drop"), MENDED["429"]], ids=str)
    def test_one_that_fails_is_set_aside(
        self,
        server: VLLMServer,
        second: VLLMServer,
        opened: Opened,
        local: DeperModel,
        people: list[Persona],
        pictures: list[Path],
        fault: Fault,
    ) -> None:
        model = opened(server, second, backoff=3600, retries=1)
        server.script = [Fault(status=429, headers={"Retry-After": "3600"}) if fault.status == 429 else fault]
        expected = local.describe(pictures[0], people[0])
        assert [model.describe(pictures[0], people[0]) for _ in range(3)] == [expected] * 3
        assert (len(server.completions), len(second.completions)) == (1, 3)
        assert "set aside" in model.report().vlm["server 1"]
        assert "set aside" not in model.report().vlm["server 2"]

    def test_one_that_is_not_there_at_first_is_left_out(
        self, second: VLLMServer, opened: Opened, people: list[Persona], pictures: list[Path]
    ) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            model = opened(f"http://127.0.0.1:{taken.getsockname()[1]}", second, backoff=3600)
            assert model.describe(pictures[0], people[0])
            assert "not reached: it cannot be reached" in model.report().vlm["server 1"]

    def test_one_that_comes_later_is_asked_what_it_serves(
        self, server: VLLMServer, second: VLLMServer, opened: Opened, people: list[Persona], pictures: list[Path]
    ) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            model = opened(f"http://127.0.0.1:{taken.getsockname()[1]}", second, retries=9)
            assert [model.describe(pictures[0], people[0]) for _ in range(3)]
            assert len(second.completions) == 3
