from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from pydeper.bundle.config import ImageEncoderInfo, PersonaEncoderConfig
from pydeper.errors import InvalidArgumentError, InvalidImageError, InvalidSampleError
from pydeper.persona.preprocess import (
    EncodedSample,
    collate,
    description_ids,
    encode_sample,
    modality,
    persona_pixels,
    trajectory_arrays,
)
from pydeper.samples.sample import Sample, images
from pydeper.samples.trajectory import Trajectory


def config(**changes: Any) -> PersonaEncoderConfig:
    fields: dict[str, Any] = {
        "fingerprint": "test",
        "image_encoder": ImageEncoderInfo(name="none", licence="none"),
        "image_size": 12,
        "image_mean": (0.485, 0.456, 0.406),
        "image_std": (0.229, 0.224, 0.225),
        "max_fixations": 3,
        "max_description_tokens": 8,
        "modalities": ("text+trajectory", "text", "trajectory"),
    }
    return PersonaEncoderConfig(**fields | changes)


CONFIG = config()
PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8))


def byte_tokenizer() -> Tokenizer:
    """One token a byte, and two special tokens."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({letter: i for i, letter in enumerate(letters)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken("<|im_end|>", special=True), AddedToken("<subj>", special=True)])
    return tokenizer


def looks(count: int) -> Trajectory:
    left = np.linspace(0, 0.8, count)
    boxes = np.stack([left, 0 * left, left + 0.2, 0 * left + 0.5], axis=1)
    return Trajectory.from_arrays(boxes, np.arange(1, count + 1) / 10)


# One part at a time


def test_pixels_follow_the_documented_arithmetic() -> None:
    pixels = persona_pixels(PICTURE, CONFIG)
    assert pixels.shape == (3, 12, 12)
    assert pixels.dtype == np.float32
    assert pixels.flags.c_contiguous
    square = np.asarray(PICTURE.resize((12, 12), Image.Resampling.BICUBIC)).astype(np.float64)
    for channel, (mean, std) in enumerate(zip(CONFIG.image_mean, CONFIG.image_std, strict=True)):
        np.testing.assert_allclose(pixels[channel], (square[:, :, channel] / 255 - mean) / std, atol=1e-5)


def test_pixels_of_a_plain_image_keep_its_colour_and_place() -> None:
    half = Image.new("RGB", (400, 100), (255, 0, 0))
    half.paste((0, 0, 255), (200, 0, 400, 100))
    plain = config(image_mean=(0, 0, 0), image_std=(1, 1, 1))
    pixels = persona_pixels(half, plain)
    np.testing.assert_array_equal(pixels[:, 6, 1], (1, 0, 0))
    np.testing.assert_array_equal(pixels[:, 6, 10], (0, 0, 1))


def test_pixels_need_rgb() -> None:
    with pytest.raises(InvalidArgumentError, match=r"mode is L, not RGB; open it with pydeper\.images\.open_image"):
        persona_pixels(Image.new("L", (5, 5)), CONFIG)


pieces = st.text(st.characters(exclude_categories=["Cs"]), max_size=5) | st.sampled_from(["<|im_end|>", "<subj>"])


@given(st.lists(pieces, max_size=6).map("".join))
@settings(max_examples=50)
def test_text_never_becomes_special_tokens(text: str) -> None:
    tokenizer = byte_tokenizer()
    ids = description_ids(tokenizer, text, 1000)
    assert max(ids, default=0) < 256
    assert tokenizer.decode(ids) == text
    assert description_ids(tokenizer, text, 5) == ids[:5]
    assert not tokenizer.encode_special_tokens  # the caller's tokenizer is left as it was


def test_the_special_tokens_would_have_been_there() -> None:
    assert byte_tokenizer().encode("<subj>").ids == [257]
    assert len(description_ids(byte_tokenizer(), "<subj>", 9)) == len("<subj>")


def test_long_trajectories_are_cut() -> None:
    trajectory = looks(5)
    for limit, kept in ((3, 3), (5, 5), (30, 5)):
        boxes, durations = trajectory_arrays(trajectory, limit)
        np.testing.assert_array_equal(boxes, trajectory.boxes[:kept])
        np.testing.assert_array_equal(durations, trajectory.durations[:kept])
        assert boxes.dtype == durations.dtype == np.float32


def test_limits_below_one_are_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="max_tokens is 0"):
        description_ids(byte_tokenizer(), "dog", 0)
    with pytest.raises(InvalidArgumentError, match="max_fixations is -1"):
        trajectory_arrays(looks(2), -1)


# Whole samples


def test_encoding_opens_the_image_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    PICTURE.save(path)
    opened: list[object] = []
    open_image = images.open_image

    def counting(image: images.ImageLike) -> Image.Image:
        opened.append(image)
        return open_image(image)

    monkeypatch.setattr(images, "open_image", counting)
    encoded = encode_sample(Sample(path, "a dog and a cat", looks(5)), byte_tokenizer(), CONFIG)
    assert opened == [path]
    np.testing.assert_array_equal(encoded.pixel_values, persona_pixels(PICTURE, CONFIG))
    assert encoded.input_ids.tolist() == description_ids(byte_tokenizer(), "a dog and a cat", 8)
    assert encoded.input_ids.dtype == np.int64
    np.testing.assert_array_equal(encoded.boxes, looks(5).boxes[:3])
    np.testing.assert_array_equal(encoded.durations, looks(5).durations[:3])


def test_missing_parts_are_empty() -> None:
    text = encode_sample(Sample(PICTURE, "dog"), byte_tokenizer(), CONFIG)
    assert (text.boxes.shape, text.durations.shape, text.input_ids.shape) == ((0, 4), (0,), (3,))
    look = encode_sample(Sample(PICTURE, trajectory=looks(2)), byte_tokenizer(), CONFIG)
    assert (look.boxes.shape, look.durations.shape, look.input_ids.shape) == ((2, 4), (2,), (0,))


@pytest.mark.parametrize(
    ("sample", "kind"),
    [
        (Sample(PICTURE, "dog", looks(1), source="ana.jsonl:3"), "text+trajectory"),
        (Sample(PICTURE, "dog", source="ana.jsonl:3"), "text"),
        (Sample(PICTURE, trajectory=looks(1), source="ana.jsonl:3"), "trajectory"),
    ],
)
def test_kinds_the_model_was_not_trained_on_are_refused(sample: Sample, kind: Any) -> None:
    assert modality(sample) == kind
    encode_sample(sample, byte_tokenizer(), config(modalities=(kind,)))
    others = tuple(other for other in CONFIG.modalities if other != kind)
    with pytest.raises(InvalidSampleError, match=r"^ana\.jsonl:3: ") as caught:
        encode_sample(sample, byte_tokenizer(), config(modalities=others))
    assert f"of the kind {kind!r}" in str(caught.value)
    assert f"{others[0]!r} and {others[1]!r}" in str(caught.value)


def test_an_image_that_cannot_be_read_is_named() -> None:
    with pytest.raises(InvalidImageError, match=r"^ana\.jsonl:3: image 'gone\.jpg' does not exist"):
        encode_sample(Sample("gone.jpg", "dog", source="ana.jsonl:3"), byte_tokenizer(), CONFIG)


# Batches


def encoded_sample(words: int, stops: int, pixels: tuple[int, ...] | None = (3, 4, 4), fill: int = 7) -> EncodedSample:
    return EncodedSample(
        pixel_values=None if pixels is None else np.full(pixels, fill, np.float32),
        input_ids=np.arange(1, words + 1, dtype=np.int64) * fill,
        boxes=np.tile(np.array([0.1, 0.2, 0.3, 0.4], np.float32), (stops, 1)),
        durations=np.full(stops, 0.5, np.float32),
    )


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=5))
def test_collation_pads_to_the_longest(sizes: list[tuple[int, int]]) -> None:
    samples = [encoded_sample(words, stops, fill=row + 1) for row, (words, stops) in enumerate(sizes)]
    batch = collate(samples)
    count, length, longest = len(sizes), max(1, *(w for w, _ in sizes)), max(1, *(s for _, s in sizes))
    assert {name: (array.shape, array.dtype.name) for name, array in batch.items()} == {
        "pixel_values": ((count, 3, 4, 4), "float32"),
        "input_ids": ((count, length), "int64"),
        "attention_mask": ((count, length), "int64"),
        "boxes": ((count, longest, 4), "float32"),
        "durations": ((count, longest), "float32"),
        "fixation_mask": ((count, longest), "int64"),
    }
    for row, (sample, (words, stops)) in enumerate(zip(samples, sizes, strict=True)):
        np.testing.assert_array_equal(batch["pixel_values"][row], row + 1)
        assert batch["attention_mask"][row].tolist() == [1] * words + [0] * (length - words)
        assert batch["fixation_mask"][row].tolist() == [1] * stops + [0] * (longest - stops)
        assert batch["input_ids"][row].tolist() == sample.input_ids.tolist() + [0] * (length - words)
        assert batch["durations"][row].tolist() == [0.5] * stops + [0] * (longest - stops)
        np.testing.assert_array_equal(batch["boxes"][row, :stops], sample.boxes)
        np.testing.assert_array_equal(batch["boxes"][row, stops:], np.tile([0, 0, 1, 1], (longest - stops, 1)))


def test_batches_without_pixels() -> None:
    batch = collate([encoded_sample(1, 1, None), encoded_sample(2, 0, None)])
    assert sorted(batch) == ["attention_mask", "boxes", "durations", "fixation_mask", "input_ids"]


def test_batches_that_do_not_fit_together() -> None:
    with pytest.raises(InvalidArgumentError, match="zero samples"):
        collate([])
    for other in (None, (3, 5, 4)):
        with pytest.raises(InvalidArgumentError, match=r"shapes \[\(3, 4, 4\), .*\] cannot be stacked"):
            collate([encoded_sample(1, 1), encoded_sample(1, 1, other)])
