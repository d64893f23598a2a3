"""Both caches against a list of arrays that only ever grows, and what the model makes of them."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import attrs
import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pydeper import InvalidArgumentError
from pydeper.runtime.session import import_onnxruntime
from pydeper.vlm import DecodingOptions, EncodedImage, Qwen2VLRuntime
from pydeper.vlm.onnx.kv_cache import GrowingCache, InPlaceCache, KVCache, Prefix
from pydeper.vlm.protocol import Row as RowAsked
from tests.support.images import random_image
from tests.support.small_vlm import SmallVLM

LAYERS, HEADS, WIDTH = 2, 2, 3
ROOM = 12
PAST = [f"past.{i}" for i in range(2 * LAYERS)]
PRESENT = [f"present.{i}" for i in range(2 * LAYERS)]
# Widths and heights that give 4 to 25 tokens an image.
SIZES = [(84, 84), (60, 200), (300, 90), (17, 40), (500, 400), (84, 84)]


class Binding:
    """What a decoder's run does to a cache: it reads the past and adds tokens, drawn from a generator.

    A run reads and writes what was bound, as ONNX Runtime does: in place where past and present are one buffer, else
    into new arrays behind the outputs' names.
    """

    def __init__(self) -> None:
        self.inputs: dict[str, np.ndarray] = {}
        self.values: dict[str, object] = {}
        self.outputs: dict[str, object] = {"logits": None}

    def bind_ortvalue_input(self, name: str, value: object) -> None:
        self.values[name] = value

    def bind_ortvalue_output(self, name: str, value: object) -> None:
        assert value is self.values[name.replace("present", "past")]
        self.outputs[name] = value

    def bind_output(self, name: str, device: str) -> None:
        assert device == "cpu"
        self.outputs[name] = None

    def get_outputs(self) -> list[object]:
        return list(self.outputs.values())


def tokens_of(rng: np.random.Generator, rows: int, length: int) -> np.ndarray:
    return rng.standard_normal((rows, HEADS, length, WIDTH)).astype(np.float32)


def prefix_of(rng: np.random.Generator, length: int) -> Prefix:
    return Prefix(tuple(tokens_of(rng, 1, length) for _ in PAST), int(rng.integers(0, 50)))


def add(cache: KVCache, new: Sequence[np.ndarray]) -> None:
    """Runs as a decoder would: `new` is (rows, heads, S, width) for every layer's keys and values."""
    binding, length = Binding(), new[0].shape[2]
    cache.bind(binding, PAST, PRESENT)
    if isinstance(cache, InPlaceCache):
        for buffer, tokens in zip(cache.buffers, new, strict=True):
            for row, begin in enumerate(cache.lengths):
                buffer[row, :, begin : begin + length] = tokens[row]
    else:
        value = import_onnxruntime().OrtValue.ortvalue_from_numpy
        for past, present, tokens in zip(PAST, PRESENT, new, strict=True):
            known = binding.values[past].numpy()  # type: ignore[attr-defined]
            binding.outputs[present] = value(np.concatenate([known, tokens], axis=2))
    cache.advance(binding, length)


def held(cache: KVCache, row: int) -> list[np.ndarray]:
    """What a decoder would read of a row, (heads, length, width) for every layer's keys and values."""
    binding = Binding()
    cache.bind(binding, PAST, PRESENT)
    arrays = [binding.values[name].numpy() for name in PAST]  # type: ignore[attr-defined]
    assert all(len(array) == len(cache.lengths) for array in arrays)
    return [array[row, :, : cache.lengths[row]] for array in arrays]


@attrs.define
class Row:
    """The model of one row: arrays that grow."""

    layers: list[np.ndarray]
    position: int

    def add(self, tokens: Sequence[np.ndarray]) -> None:
        self.layers = [np.concatenate(pair, axis=1) for pair in zip(self.layers, tokens, strict=True)]
        self.position += tokens[0].shape[1]


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.integers(1, 3)),
        st.tuples(st.just("join"), st.integers(1, 3)),
        st.tuples(st.just("keep"), st.integers(0, 2**6 - 1)),
        st.tuples(st.just("place"), st.integers(0, 99)),
    ),
    max_size=8,
)


def begun(kind: str, prefixes: Sequence[Prefix], room: int) -> KVCache:
    """A cache with a row of each prefix."""
    caches: list[KVCache] = [
        InPlaceCache(prefix, room) if kind == "in place" else GrowingCache(prefix) for prefix in prefixes
    ]
    for other in caches[1:]:
        assert caches[0].joins(other)
        caches[0].join(other)
    return caches[0]


@pytest.mark.parametrize("kind", ["vlm", "growing_vlm", "openvino_vlm"])
@given(st.lists(st.integers(0, 5), min_size=1, max_size=5), STEPS, st.integers(0, 2**32 - 1))
@settings(max_examples=80)
def test_a_cache_holds_what_was_added(kind: str, lengths: list[int], steps: list[tuple[str, int]], seed: int) -> None:
    rng = np.random.default_rng(seed)
    lengths = lengths if kind == "in place" else [lengths[0]] * len(lengths)
    prefixes = [prefix_of(rng, length) for length in lengths]
    room = sum(number for step, number in steps if step == "add")
    cache = begun(kind, prefixes, room)
    rows = [Row([layer[0] for layer in prefix.layers], prefix.next_position) for prefix in prefixes]
    for step, number in steps:
        if step == "keep":
            mask = np.array([number >> i & 1 for i in range(len(rows))], bool)
            mask[number % len(rows)] = True  # a cache without rows is never asked for
            cache.keep(mask)
            rows = [row for row, kept in zip(rows, mask, strict=True) if kept]
        elif step == "place":
            cache.positions[:] = number
            for row in rows:
                row.position = number
        elif step == "join":
            lengths = [int(rng.integers(0, 6)) if kind == "in place" else int(cache.lengths[0]) for _ in range(number)]
            new = [prefix_of(rng, length) for length in lengths]
            prefixes += new
            cache.join(begun(kind, new, room))
            rows += [Row([layer[0] for layer in prefix.layers], prefix.next_position) for prefix in new]
        else:
            tokens = [tokens_of(rng, len(rows), number) for _ in PAST]
            add(cache, tokens)
            for i, row in enumerate(rows):
                row.add([layer[i] for layer in tokens])
        assert cache.lengths.tolist() == [row.layers[0].shape[1] for row in rows]
        assert cache.positions.tolist() == [row.position for row in rows]
        for i, row in enumerate(rows):
            for found, expected in zip(held(cache, i), row.layers, strict=True):
                np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("kind", ["vlm", "growing_vlm", "openvino_vlm"])
@given(st.integers(0, 4), st.integers(1, 4), st.data())
@settings(max_examples=30)
def test_a_prefix_is_a_copy_of_the_first_row(kind: str, length: int, more: int, data: st.DataObject) -> None:
    rng = np.random.default_rng(0)
    first = prefix_of(rng, length)
    before = [layer.copy() for layer in first.layers]
    cache = begun(kind, [first, prefix_of(rng, length)], ROOM)
    new = [tokens_of(rng, 2, more) for _ in PAST]
    add(cache, new)
    whole = [np.concatenate([old, layer[:1]], axis=2) for old, layer in zip(first.layers, new, strict=True)]
    cut = data.draw(st.integers(0, length + more))
    prefix = cache.prefix(cut, 7)
    assert (prefix.length, prefix.next_position) == (cut, 7)
    assert prefix.nbytes == len(PAST) * HEADS * WIDTH * cut * 4
    add(cache, [tokens_of(rng, 2, more) for _ in PAST])
    cache.keep(np.array([False, True]))
    for found, expected in zip(prefix.layers, whole, strict=True):
        np.testing.assert_array_equal(found, expected[:, :, :cut])
    for found, expected in zip(first.layers, before, strict=True):  # other rows start from it, too
        np.testing.assert_array_equal(found, expected)
    shorter = prefix.cut(cut // 2, 3)
    assert (shorter.length, shorter.next_position) == (cut // 2, 3)
    assert all(np.shares_memory(a, b) for a, b in zip(shorter.layers, prefix.layers, strict=True) if a.size)


def test_rows_of_a_growing_cache_are_of_one_length() -> None:
    rng = np.random.default_rng(0)
    cache = GrowingCache(prefix_of(rng, 3))
    assert cache.joins(GrowingCache(prefix_of(rng, 3)))
    assert not cache.joins(GrowingCache(prefix_of(rng, 4)))


def test_what_is_bound_in_place_is_the_memory_of_the_buffers() -> None:
    """Also after rows have gone and come: what a run writes must be what the cache keeps."""
    rng = np.random.default_rng(0)
    cache = InPlaceCache(prefix_of(rng, 3), 4)
    cache.join(InPlaceCache(prefix_of(rng, 5), 4))
    assert [buffer.shape for buffer in cache.buffers] == [(2, HEADS, 9, WIDTH)] * len(PAST)
    cache.keep(np.array([False, True]))
    before = [buffer.ctypes.data for buffer in cache.buffers]
    cache.join(InPlaceCache(prefix_of(rng, 2), 4))
    assert [buffer.ctypes.data for buffer in cache.buffers] == before  # there was room
    binding = Binding()
    cache.bind(binding, PAST, PRESENT)
    for name, buffer in zip(PAST, cache.buffers, strict=True):
        assert binding.values[name].data_ptr() == buffer.ctypes.data  # type: ignore[attr-defined]


# The model


@pytest.fixture(scope="module")
def growing_vlm(small_vlm: SmallVLM, tmp_path_factory: pytest.TempPathFactory) -> Qwen2VLRuntime:
    """The same files, but for the note that says that the cache may be written in place."""
    folder = tmp_path_factory.mktemp("growing")
    shutil.copytree(small_vlm.folder, folder, dirs_exist_ok=True)
    without_note(folder / "decoder_model_merged.onnx")
    return attrs.evolve(small_vlm, folder=folder).open()


def without_note(path: Path) -> None:
    model = ir.load(path)
    assert model.metadata_props.pop("pydeper.kv_cache") == "in place"
    ir.save(model, path)


@pytest.fixture(scope="module")
def openvino_vlm(small_vlm: SmallVLM) -> Qwen2VLRuntime:
    """The same files on the other runtime, where shorter rows are padded."""
    return small_vlm.open("openvino")


@pytest.fixture(scope="module")
def images(vlm: Qwen2VLRuntime) -> list[EncodedImage]:
    return [vlm.encode_image(random_image(*size, seed=i)) for i, size in enumerate(SIZES)]


def soft_tokens(rows: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((rows, 64)).astype(np.float32)


OPTIONS = {
    "greedy": DecodingOptions(max_new_tokens=16),
    "sampled": DecodingOptions(max_new_tokens=60, temperature=2.0, seed=1),
    "guided": DecodingOptions(max_new_tokens=10, strength=1.5),
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("style", ["description", "caption"])
def test_rows_of_different_images_are_as_each_alone(
    vlm: Qwen2VLRuntime, images: list[EncodedImage], style: str, options: DecodingOptions
) -> None:
    soft = soft_tokens(len(images))
    together = vlm.generate(images, style, soft, options)
    assert together == [
        vlm.generate(image, style, row[None], options)[0] for image, row in zip(images, soft, strict=True)
    ]
    assert len({generation.token_ids for generation in together}) == len(images)
    backwards = vlm.generate(images[::-1], style, soft[::-1], options)
    assert backwards == together[::-1]
    plain = vlm.generate(images, style, None, options)
    assert plain == [vlm.generate(image, style, None, options)[0] for image in images]


def test_rows_end_each_at_its_own_time(
    vlm: Qwen2VLRuntime, growing_vlm: Qwen2VLRuntime, openvino_vlm: Qwen2VLRuntime, images: list[EncodedImage]
) -> None:
    """The first, some between and the last: the others move up in their buffers."""
    options, soft = DecodingOptions(max_new_tokens=100, temperature=1.5, seed=5), soft_tokens(len(images))
    together = vlm.generate(images, "description", soft, options)
    lengths = [len(generation.token_ids) for generation in together]
    assert len(set(lengths)) >= 4
    assert lengths != sorted(lengths, reverse=True)  # a row goes before one above it
    for i, generation in enumerate(together):
        assert generation == vlm.generate(images[i], "description", soft[i : i + 1], options)[0]
    for other in (growing_vlm, openvino_vlm):
        others = [other.encode_image(random_image(*size, seed=i)) for i, size in enumerate(SIZES)]
        assert other.generate(others, "description", soft, options) == together


@pytest.mark.parametrize("other", ["growing_vlm", "openvino_vlm"])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_a_growing_cache_gives_the_same_tokens(
    request: pytest.FixtureRequest,
    vlm: Qwen2VLRuntime,
    other: str,
    images: list[EncodedImage],
    options: DecodingOptions,
) -> None:
    growing_vlm: Qwen2VLRuntime = request.getfixturevalue(other)
    assert vlm.report()["key/value cache"] == "written in place"
    assert growing_vlm.report()["key/value cache"] == "grows step by step"
    others = [growing_vlm.encode_image(random_image(*size, seed=i)) for i, size in enumerate(SIZES)]
    soft = soft_tokens(len(images))
    for style in ("description", "caption"):
        expected = vlm.generate(images, style, soft, options)
        # Before anything is known of the images, and with all of it.
        assert growing_vlm.generate(others, style, soft, options) == expected
        assert growing_vlm.generate(others, style, soft, options) == expected
        one = growing_vlm.generate(others[1], style, soft, options)
        assert one == vlm.generate(images[1], style, soft, options)
        assert growing_vlm.generate(others, style, None, options) == vlm.generate(images, style, None, options)


@given(st.lists(st.integers(0, len(SIZES) - 1), max_size=5), st.integers(0, 1000))
@settings(max_examples=12)
def test_any_images_in_any_order(vlm: Qwen2VLRuntime, images: list[EncodedImage], chosen: list[int], seed: int) -> None:
    soft, options = soft_tokens(len(chosen), seed), DecodingOptions(max_new_tokens=6)
    found = vlm.generate([images[i] for i in chosen], "description", soft, options)
    alone = [vlm.generate(images[i], "description", row[None], options)[0] for i, row in zip(chosen, soft, strict=True)]
    assert found == alone


@pytest.mark.parametrize("kind", ["vlm", "growing_vlm", "openvino_vlm"])
@given(data=st.data())
@settings(max_examples=8)
def test_a_row_is_as_it_would_be_alone_whenever_it_joins(
    request: pytest.FixtureRequest, kind: str, data: st.DataObject
) -> None:
    """Each row has an image, a style, a persona or none, and a way of decoding of its own, and joins at some step."""
    model: Qwen2VLRuntime = request.getfixturevalue(kind)
    images = [model.encode_image(random_image(*size, seed=i)) for i, size in enumerate(SIZES[:4])]
    kinds = st.tuples(
        st.sampled_from(images),
        st.one_of(st.none(), st.integers(0, 2)),
        st.sampled_from(["description", "caption"]),
        st.sampled_from([attrs.evolve(options, max_new_tokens=7) for options in OPTIONS.values()]),
    )
    rows = [
        RowAsked(image, None if person is None else soft_tokens(3)[person], style, options)
        for image, person, style, options in data.draw(st.lists(kinds, min_size=1, max_size=6))
    ]
    steps = sorted(data.draw(st.lists(st.integers(0, 12), min_size=len(rows) - 1, max_size=len(rows) - 1)))
    unwanted = data.draw(st.sets(st.integers(0, len(rows) - 1), max_size=1))
    joining, step, texts, ends = rows[1:], 0, [""] * len(rows), []

    def more(running: int) -> list[RowAsked]:
        nonlocal step
        step += 1
        found = []
        while steps and (steps[0] < step or (not running and not found)):
            steps.pop(0)
            found.append(joining.pop(0))
        return found

    for row, piece in model.stream_rows(rows[:1], more=more, wanted=lambda row: row not in unwanted or not texts[row]):
        assert row not in ends
        if piece is None:
            ends.append(row)
        else:
            assert isinstance(piece, str)
            texts[row] += piece
    assert sorted(ends) == list(range(len(rows)))
    for number, row in enumerate(rows):
        alone = "".join(model.stream(row.image, row.style, row.soft_token, row.options))
        assert texts[number] == alone if number not in unwanted else alone.startswith(texts[number])


def test_a_row_that_cannot_be_computed_fails_alone(vlm: Qwen2VLRuntime, images: list[EncodedImage]) -> None:
    alone = vlm.generate(images[0], "description", None, OPTIONS["greedy"])[0].text
    good = RowAsked(images[0], None, "description", OPTIONS["greedy"])
    bad = [attrs.evolve(good, style="sonnet"), attrs.evolve(good, soft_token=np.zeros(3))]
    batches = iter([bad, [good]])
    texts, errors = ["", ""], {}
    for row, piece in vlm.stream_rows([good], more=lambda running: next(batches, [])):
        if isinstance(piece, InvalidArgumentError):
            errors[row] = str(piece)
        else:
            texts[row == 3] += piece or ""
    assert texts == [alone, alone]
    assert list(errors) == [1, 2]
    assert "no style 'sonnet'" in errors[1]
    with pytest.raises(InvalidArgumentError, match="no style"):
        vlm.stream_rows([good, *bad])
