"""What goes over the wire: tensors in torch's format, events cut anywhere, settings."""

import asyncio
import io
import itertools
import json
import pickle
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from pydeper import InvalidArgumentError, VLLMServers
from pydeper.vlm.vllm.events import Tokens, read_events
from pydeper.vlm.vllm.failures import ServerFailedError
from pydeper.vlm.vllm.torch_file import torch_file


@given(
    st.sampled_from(["float16", "float32", "float64", ">f4"]).flatmap(
        lambda dtype: arrays.arrays(dtype, arrays.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5))
    )
)
def test_torch_reads_the_same_tensor(array: np.ndarray) -> None:
    tensor = torch.load(io.BytesIO(torch_file(array)), weights_only=True)
    assert tensor.shape == array.shape
    assert tensor.is_contiguous()
    assert not tensor.requires_grad
    assert tensor.numpy().dtype == array.dtype.newbyteorder("=")
    np.testing.assert_array_equal(tensor.numpy(), array)


def test_a_view_is_written_as_it_looks() -> None:
    array = np.arange(24, dtype=np.float32).reshape(4, 6)[::-2, 1::2].T
    np.testing.assert_array_equal(torch.load(io.BytesIO(torch_file(array)), weights_only=True).numpy(), array)


@pytest.mark.parametrize("dtype", ["int64", "bool", "complex64", "U3"])
def test_other_types_are_refused(dtype: str) -> None:
    with pytest.raises(ValueError, match=f"of float16, float32, float64 can be written, not of .*{dtype[:3]}"):
        torch_file(np.zeros(2, dtype))


def event(ids: list[int] | None = None, reason: str | None = None, **more: Any) -> bytes:
    choice = {"index": 0, "delta": {"content": "\u2028\x85é"}, "finish_reason": reason, "token_ids": ids}
    return b"data: " + json.dumps({"choices": [choice], **more}, ensure_ascii=False).encode() + b"\n\n"


STREAM = b": ping\n\n" + event(prompt_token_ids=[1, 2]) + event([3]) + event([4, 5], "stop") + b"data: [DONE]\n\n"


def read(*chunks: bytes) -> list[Tokens]:
    async def body() -> AsyncIterator[bytes]:
        for chunk in chunks:
            yield chunk

    async def collected() -> list[Tokens]:
        return [tokens async for tokens in read_events(body())]

    return asyncio.run(collected())


@given(st.lists(st.integers(0, len(STREAM)), max_size=12), st.booleans())
def test_a_stream_cut_anywhere_holds_the_same_events(cuts: list[int], windows: bool) -> None:
    stream = STREAM.replace(b"\n", b"\r\n") if windows else STREAM
    places = [0, *sorted(cuts), len(stream)]
    chunks = [stream[start:end] for start, end in itertools.pairwise(places)]
    assert read(*chunks) == [Tokens(prompt_ids=(1, 2)), Tokens((3,)), Tokens((4, 5), "stop")]


def test_events_that_say_nothing_of_tokens() -> None:
    usage = b'data: {"choices": [], "usage": {"total_tokens": 7}}\n\n'
    assert read(event([1], "length") + usage + b"event: end\n\ndata: [DONE]\n\nmore") == [
        Tokens((1,), "length"),
        Tokens(),
    ]
    assert read(b'data: {"error": {"message": "no"}}\n\n') == [Tokens(error={"message": "no"})]


@pytest.mark.parametrize(
    ("stream", "told"),
    [
        (b"", "broke off before the description was complete"),
        (event([1]), "broke off"),
        (event([1]) + b"data: [DONE]\n\n", "broke off"),
        (b"<html></html>", "broke off"),
        (b"data: nonsense\n\n", "malformed event: not valid JSON"),
        (b"data: \xff\n\n", "malformed event: not UTF-8"),
        (b"data: []\n\n", r"malformed event: \[\]"),
        (b'data: {"choices": [{}]}\n\n', "malformed event"),
        (b'data: {"choices": [1]}\n\n', "malformed event"),
        (event("12"), "malformed event: token ids '12'"),  # type: ignore[arg-type]
        (event([-1]), r"malformed event: token ids \[-1\]"),
        (event([True]), "malformed event: token ids"),
        (event([1], "abort"), "ended the description for another reason: 'abort'"),
        (b"data: " + b"x" * 2**24, "an event of more than 16777216 bytes"),
    ],
)
def test_streams_that_fail(stream: bytes, told: str) -> None:
    with pytest.raises(ServerFailedError, match=told):
        read(stream)


class TestSettings:
    @pytest.mark.parametrize(
        ("given", "expected"),
        [
            ("http://host:8000", ("http://host:8000/v1",)),
            ("http://host:8000/v1/", ("http://host:8000/v1",)),
            (["https://a.example/llm/v1", "http://[::1]:80"], ("https://a.example/llm/v1", "http://[::1]:80/v1")),
        ],
    )
    def test_addresses(self, given: Any, expected: tuple[str, ...]) -> None:
        assert VLLMServers.of(given).addresses == expected

    @pytest.mark.parametrize(
        ("given", "told"),
        [
            ("", "must look like 'http://host:8000/v1'"),
            ("host:8000", "must look like"),
            ("ftp://host", "must look like"),
            ("http://", "must look like"),
            ("http://host:port", "must look like"),
            ("http://host:99999", "must look like"),
            ("http://ho st", "must look like"),
            ("http://host/v1?key=s3cret", "must end with the path of the API"),
            ("http://user:s3cret@host", "must not hold a user or a password"),
            ([], "at least one, and none twice"),
            (["http://a", "http://a/v1"], "at least one, and none twice"),
            ([8000], "must be texts, got int"),
            (b"http://a", "must be an address or several, got bytes"),
            (None, "must be an address or several, got NoneType"),
        ],
    )
    def test_what_is_no_address(self, given: Any, told: str) -> None:
        with pytest.raises(InvalidArgumentError, match=f"addresses: .*{told}") as caught:
            VLLMServers(given)
        assert "user:s3cret" not in str(caught.value)

    @pytest.mark.parametrize(
        ("settings", "told"),
        [
            ({"max_concurrency": 0}, "max_concurrency: must be a whole number of at least 1, got 0"),
            ({"max_concurrency": 1.5}, "max_concurrency: .* got 1.5"),
            ({"timeout": 0}, "timeout: must be seconds, at least 0.001, and finite, got 0"),
            ({"timeout": float("nan")}, "timeout: .* got nan"),
            ({"connect_timeout": "5"}, "connect_timeout: .* got '5'"),
            ({"retries": -1}, "retries: .* got -1"),
            ({"retries": True}, "retries: .* got True"),
            ({"backoff": float("inf")}, "backoff: .* got inf"),
            ({"model": 1}, "model: must be a text, or None, got 1"),
            ({"verify": "no"}, "verify: must be True or False, got 'no'"),
            ({"api_key": ""}, "api_key: must be a text of printable ASCII characters$"),
            ({"api_key": "sk\nX-Other: 1"}, "api_key: must be a text of printable ASCII characters$"),
        ],
    )
    def test_values_out_of_range(self, settings: dict[str, Any], told: str) -> None:
        with pytest.raises(InvalidArgumentError, match=told):
            VLLMServers("http://host", **settings)

    def test_a_key_in_the_environment_that_is_none(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PYDEPER_VLLM_API_KEY", "schlüssel")
        with pytest.raises(InvalidArgumentError, match=r"\$PYDEPER_VLLM_API_KEY: must be") as caught:
            VLLMServers("http://host").bearer_token()
        assert "schlüssel" not in str(caught.value)
        monkeypatch.setenv("PYDEPER_VLLM_API_KEY", " ")
        assert VLLMServers("http://host").bearer_token() is None

    def test_a_pickle_holds_all_but_the_key(self) -> None:
        settings = VLLMServers("http://host", api_key="sk-secret", model="m", ca_file=Path("ca.pem"), retries=1)
        pickled = pickle.dumps(settings)
        assert b"sk-secret" not in pickled
        assert pickle.loads(pickled) == VLLMServers("http://host", model="m", ca_file=Path("ca.pem"), retries=1)
