"""Every way of describing gives through a vLLM server what it gives on this machine."""

import asyncio
import pickle
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import pydeper
from export.bundle.assemble import write_manifest
from pydeper import DeperModel, EncodedImage, InvalidArgumentError, InvalidImageError, Persona, VLLMServers
from pydeper.bundle.bundle import open_bundle
from pydeper.bundle.layout import BUILTIN
from pydeper.bundle.tokenizer import open_tokenizer
from pydeper.images import open_image
from pydeper.vlm import DecodingOptions, open_vlm
from pydeper.vlm.vllm.runtime import VLLMRuntime
from tests.pydeper.vlm.vllm.conftest import Opened
from tests.support.images import random_image
from tests.support.vllm.server import VLLMServer


@pytest.fixture
def served(server: VLLMServer, opened: Opened) -> DeperModel:
    return opened(server)


async def collected(model: DeperModel, *arguments: Any, **options: Any) -> list[str]:
    return [piece async for piece in model.astream(*arguments, **options)]


@pytest.mark.parametrize(
    "options",
    [{}, {"max_new_tokens": 3}, {"strength": 0}, {"temperature": 0.8, "top_p": 0.9, "seed": 7}],
    ids=["greedy", "short", "without persona", "sampled"],
)
def test_one_description(
    served: DeperModel, local: DeperModel, people: list[Persona], pictures: list[Path], options: Any
) -> None:
    for picture in pictures:
        for persona in (*people, None):
            expected = local.describe(picture, persona, **options)
            assert served.describe(picture, persona, **options) == expected
            assert "".join(served.stream(picture, persona, **options)) == expected
            assert "".join(asyncio.run(collected(served, picture, persona, **options))) == expected


@pytest.mark.parametrize("most", [3, 64])
def test_tokens_and_the_reason_of_their_end(server: VLLMServer, pictures: list[Path], most: int) -> None:
    opened = open_bundle("tiny")
    tokenizer = open_tokenizer(opened.folder / "tokenizer.json")
    parts = opened.config.vlm, opened.config.prompts, tokenizer
    here, there = open_vlm(opened.vlm_folder, *parts), VLLMRuntime(VLLMServers(server.address), *parts)
    soft_tokens = np.random.default_rng(0).normal(0, 0.5, (3, opened.config.vlm.hidden_size))
    options = DecodingOptions(max_new_tokens=most)
    picture = open_image(pictures[0])
    found, expected = (
        vlm.generate(vlm.encode_image(picture), "description", soft_tokens, options) for vlm in (there, here)
    )
    assert found == expected


def test_many_descriptions(
    served: DeperModel, local: DeperModel, people: list[Persona], pictures: list[Path], server: VLLMServer
) -> None:
    eight = people * 4
    assert served.describe_each(pictures[0], eight) == local.describe_each(pictures[0], eight)
    pairs = [(picture, persona) for picture in pictures for persona in (*people, None)]
    done: list[tuple[int, int]] = []
    assert served.describe_batch(pairs, progress=lambda *of: done.append(of)) == local.describe_batch(pairs)
    assert done[-1] == (len(pairs), len(pairs))
    assert len(server.completions) == len(eight) + len(pairs)
    assert served.describe_each(pictures[0], []) == served.describe_batch([]) == []


def test_images_of_any_size_and_kind(served: DeperModel, local: DeperModel, people: list[Persona]) -> None:
    for size in ((84, 84), (31, 200), (700, 500)):
        picture = random_image(*size)
        for image in (picture, np.asarray(picture)):
            assert served.describe(image, people[0]) == local.describe(picture, people[0])
    with pytest.raises(InvalidImageError):
        served.describe(b"no image", people[0])


def test_an_encoded_image_serves_all_and_is_of_its_model_alone(
    served: DeperModel, local: DeperModel, people: list[Persona], pictures: list[Path]
) -> None:
    seen = served.encode_image(pictures[0])
    assert isinstance(seen, EncodedImage)
    assert repr(seen).startswith("EncodedImage(81 image tokens, grid 1×18×18 patches, ")
    assert (seen.grid, seen.image_tokens) == ((1, 18, 18), 81)
    assert served.describe(seen, people[0]) == local.describe(pictures[0], people[0])
    assert served.describe_batch([(seen, people[1]), (seen, None)]) == [
        local.describe(pictures[0], people[1]),
        local.describe(pictures[0]),
    ]
    for model, image in ((local, seen), (served, local.encode_image(pictures[0]))):
        with pytest.raises(InvalidArgumentError, match="encoded by another model"):
            model.describe(image)
        with pytest.raises(InvalidArgumentError, match=r"pair 1 of 1: .*encoded by another model"):
            model.describe_batch([(image, None)])
    with pytest.raises(InvalidArgumentError, match="send the image itself"):
        pickle.dumps(seen)


def test_the_request_is_the_local_prompt(
    served: DeperModel, people: list[Persona], pictures: list[Path], server: VLLMServer
) -> None:
    served.describe(pictures[0], people[0], max_new_tokens=7)
    (body,) = server.completions
    assert [part["type"] for part in body["messages"][1]["content"]] == ["image_url", "text", "prompt_embeds"]
    assert body["messages"][0] == {"role": "system", "content": served.config.prompts.system}
    assert (body["model"], body["max_tokens"], body["stop_token_ids"]) == (
        "served",
        7,
        list(served.config.vlm.tokens.end),
    )
    # A server fills in what is left out from the model's own generation_config.json.
    assert body["temperature"] == body["min_p"] == body["top_k"] == 0
    assert body["top_p"] == body["repetition_penalty"] == 1
    assert "seed" not in body


def test_the_vlms_own_files_are_not_needed(
    server: VLLMServer, local: DeperModel, people: list[Persona], pictures: list[Path], tmp_path: Path
) -> None:
    folder = shutil.copytree(BUILTIN / "tiny", tmp_path / "tiny")
    shutil.rmtree(folder / "vlm")
    expected = local.describe(pictures[0], people[0])
    as_listed = DeperModel.from_pretrained(folder, vlm=server.address)
    assert as_listed.describe(pictures[0], people[0]) == expected
    write_manifest(folder)
    unlisted = DeperModel.from_pretrained(folder, vlm=[server.root])
    assert unlisted.describe(pictures[0], people[0]) == expected


def test_persona_encoder_and_adapter_are_those_of_the_bundle(served: DeperModel, local: DeperModel) -> None:
    sample = pydeper.read_samples(BUILTIN / "tiny/demo/ana.jsonl")[:2]
    assert np.array_equal(served.embed(sample), local.embed(sample))


def test_a_copy_by_pickle_goes_to_the_same_servers(
    server: VLLMServer, people: list[Persona], pictures: list[Path], opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.key = "sk-secret"
    model = opened(server, api_key="sk-secret")
    pickled = pickle.dumps(model)
    assert b"sk-secret" not in pickled
    monkeypatch.setenv("PYDEPER_VLLM_API_KEY", "sk-secret")
    assert pickle.loads(pickled).describe(pictures[0], people[0]) == model.describe(pictures[0], people[0])


def test_threads_give_what_one_gives(
    served: DeperModel, local: DeperModel, people: list[Persona], pictures: list[Path]
) -> None:
    jobs = [(picture, persona) for picture in pictures for persona in people] * 3
    expected = [local.describe(*job) for job in jobs]
    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(lambda job: served.describe(*job), jobs)) == expected
        assert list(pool.map(lambda job: "".join(served.stream(*job)), jobs)) == expected


def test_the_report_names_the_server(served: DeperModel, server: VLLMServer) -> None:
    report = served.report()
    assert report.vlm == {"server": f"{server.address}: vLLM 0.32.0, model 'served', context of 900 tokens"}
    assert "VLM server:" in str(report)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"strength": 1.5}, "strength must be 0 or 1 on a vLLM server.* got 1.5"),
        ({"repetition_penalty": 1.1}, "repetition_penalty must be 1 on a vLLM server.* got 1.1"),
        ({"temperature": -1}, "temperature must be 0"),
        ({"style": "sonnet"}, "style: model 'tiny' knows 'description', got 'sonnet'"),
    ],
)
def test_what_a_server_cannot_do_is_refused_before_anything_is_sent(
    served: DeperModel, people: list[Persona], pictures: list[Path], server: VLLMServer, options: Any, told: str
) -> None:
    calls = [
        lambda: served.describe(pictures[0], people[0], **options),
        lambda: served.stream(pictures[0], people[0], **options),
        lambda: served.astream(pictures[0], people[0], **options),
        lambda: served.describe_each(pictures[0], people, **options),
        lambda: served.describe_batch([(pictures[0], people[0])], **options),
    ]
    for call in calls:
        with pytest.raises(InvalidArgumentError, match=told):
            call()
    assert server.completions == []


def test_wrong_settings_of_loading(server: VLLMServer) -> None:
    with pytest.raises(InvalidArgumentError, match=r"precision: is that of files on this machine.* got 'int4'"):
        DeperModel.from_pretrained("tiny", vlm=server.address, precision="int4")
    with pytest.raises(InvalidArgumentError, match="addresses: must be an address or several, got int"):
        DeperModel.from_pretrained("tiny", vlm=8000)  # type: ignore[arg-type]
    settings = VLLMServers(server.address)
    assert VLLMServers.of(settings) is settings


def test_a_picture_is_sent_as_the_model_reads_it(served: DeperModel, server: VLLMServer) -> None:
    """Transparency is laid over white, and the server finds nothing to resize."""
    served.describe(Image.new("RGBA", (300, 300), (255, 0, 0, 0)))
    served.describe(Image.new("RGB", (216, 216), "white"))
    first, second = (body["messages"][1]["content"][0] for body in server.completions)
    assert first == second
