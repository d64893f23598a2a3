import asyncio
import io
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnxruntime
import pytest
from PIL import Image

from pydeper import (
    DeperModel,
    IncompatiblePersonaError,
    InvalidArgumentError,
    InvalidImageError,
    InvalidSampleError,
    Persona,
)
from pydeper.vlm import DecodingOptions
from pydeper.vlm.worker_threads import in_worker_threads
from tests.support.images import random_image
from tests.support.random_samples import make_sample

IMAGE = random_image(90, 70, 3)
SHORT = {"max_new_tokens": 12}


def png(image):
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def test_embed_gives_one_vector_a_sample_whatever_stands_beside_it(model):
    samples = [make_sample(seed, description="a red " * (seed + 1)) for seed in range(4)]
    together = model.embed(samples)
    assert together.shape == (4, 384)
    assert together.dtype == np.float32
    alone = np.concatenate([model.embed([sample]) for sample in samples])
    np.testing.assert_allclose(together, alone, rtol=1e-3, atol=1e-4)
    in_batches = model.persona_encoder.embed(samples, batch_size=3)
    np.testing.assert_allclose(together, in_batches, rtol=1e-3, atol=1e-4)
    assert np.abs(together - together[0]).max(axis=1)[1:].min() > 1e-2
    assert model.embed([]).shape == (0, 384)


def test_embed_is_the_exported_network(model, bundle_folder):
    """Against a session of its own, fed by hand."""
    sample = make_sample(1)
    resized = sample.open_image().resize((64, 64), Image.Resampling.BICUBIC)
    config = model.config.persona_encoder
    pixels = (np.asarray(resized, np.float32) / 255 - np.float32(config.image_mean)) / np.float32(config.image_std)
    from tokenizers import Tokenizer

    ids = Tokenizer.from_file(str(bundle_folder / "tokenizer.json")).encode(sample.description).ids[:16]
    session = onnxruntime.InferenceSession(bundle_folder / "persona_encoder.onnx", providers=["CPUExecutionProvider"])
    (expected,) = session.run(
        None,
        {
            "pixel_values": pixels.transpose(2, 0, 1)[None].astype(np.float32),
            "input_ids": np.array([ids]),
            "attention_mask": np.ones((1, len(ids)), np.int64),
            "boxes": sample.trajectory.boxes[None],
            "durations": sample.trajectory.durations[None],
            "fixation_mask": np.ones((1, len(sample.trajectory)), np.int64),
        },
    )
    np.testing.assert_allclose(model.embed([sample]), expected, rtol=1e-4, atol=1e-5)


def test_a_persona_is_the_mean_and_add_continues_it(model, ana):
    samples = [make_sample(seed) for seed in range(5)]
    np.testing.assert_allclose(ana.subject_embedding, model.embed(samples).mean(axis=0), rtol=1e-4, atol=1e-5)
    assert (ana.name, ana.num_samples, ana.model_id, ana.model_revision) == ("ana", 5, "small", None)
    assert ana.encoder_fingerprint == model.config.persona_encoder.fingerprint
    grown = Persona.from_samples(iter(samples[:2]), model=model, name="x").add(samples[2:], model)
    np.testing.assert_allclose(grown.subject_embedding, ana.subject_embedding, rtol=1e-4, atol=1e-5)
    assert (grown.name, grown.num_samples) == ("x", 5)


def test_a_model_can_be_named_where_a_persona_is_made(bundle_folder, ana):
    samples = [make_sample(seed, subject=None) for seed in range(5)]
    unnamed = Persona.from_samples(samples, model=bundle_folder)
    np.testing.assert_allclose(unnamed.subject_embedding, ana.subject_embedding, rtol=1e-4, atol=1e-5)
    assert unnamed.name is None


def test_a_kind_of_sample_that_the_model_was_not_trained_for_is_refused(model):
    text_only = make_sample(1, trajectory=None, source="ana.jsonl:2")
    with pytest.raises(InvalidSampleError, match=r"sample 2 of 2: ana\.jsonl:2: .*'text'.*'text\+trajectory'"):
        model.embed([make_sample(0), text_only])
    assert model.embed([make_sample(0, description=None)]).shape == (1, 384)
    with pytest.raises(InvalidArgumentError, match=r"sample 1 must be a pydeper\.Sample, got str"):
        model.embed(["ana.jsonl"])


def test_one_bad_image_among_the_samples_is_named(model, tmp_path):
    bad = make_sample(1, image=tmp_path / "gone.png", source="ana.jsonl:3")
    with pytest.raises(InvalidImageError, match=r"sample 3 of 3: ana\.jsonl:3: .*gone\.png"):
        model.embed([make_sample(0), make_sample(1), bad])


def test_describe_is_the_adapter_and_the_vlm_put_together(model, small_vlm, bundle_folder, ana):
    adapter = onnxruntime.InferenceSession(bundle_folder / "adapter.onnx", providers=["CPUExecutionProvider"])
    (soft_tokens,) = adapter.run(None, {"subject_embedding": ana.subject_embedding[None]})
    vlm = small_vlm.open()
    encoded = vlm.encode_image(IMAGE)
    for style in ("description", "caption"):
        (expected,) = vlm.generate(encoded, style, soft_tokens, DecodingOptions(**SHORT))
        assert model.describe(IMAGE, ana, style=style, **SHORT) == expected.text
        (plain,) = vlm.generate(encoded, style, None, DecodingOptions(**SHORT))
        assert model.describe(IMAGE, style=style, **SHORT) == plain.text


def test_the_persona_decides_and_strength_measures_it(model, ana, ben):
    seen = model.encode_image(IMAGE)
    as_ana, as_ben, plain = (model.describe(seen, who, **SHORT) for who in (ana, ben, None))
    assert len({as_ana, as_ben, plain}) == 3
    assert model.describe(seen, ana, strength=0, **SHORT) == plain
    assert model.describe(seen, ana, strength=1.0, **SHORT) == as_ana


def test_every_kind_of_image_gives_the_same_text(model, ana, tmp_path):
    path = tmp_path / "scene.png"
    path.write_bytes(png(IMAGE))
    sideways = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    IMAGE.transpose(Image.Transpose.ROTATE_90).save(sideways, "PNG", exif=exif)
    images = [IMAGE, path, str(path), png(IMAGE), np.asarray(IMAGE), sideways.getvalue(), model.encode_image(IMAGE)]
    assert len({model.describe(image, ana, **SHORT) for image in images}) == 1
    assert model.describe(random_image(90, 70, 4), ana, **SHORT) != model.describe(IMAGE, ana, **SHORT)


def test_describe_each_is_describe_for_each(model, ana, ben):
    mixed = Persona.blend([ana, ben])
    personas = [ana, ben, mixed] * 4  # more than go through the decoder at once
    texts = model.describe_each(IMAGE, personas, **SHORT)
    assert texts == [model.describe(IMAGE, persona, **SHORT) for persona in (ana, ben, mixed)] * 4
    sampled = model.describe_each(IMAGE, [ana, ben], temperature=1.0, seed=7, style="caption", **SHORT)
    assert sampled == [
        model.describe(IMAGE, who, temperature=1.0, seed=7, style="caption", **SHORT) for who in (ana, ben)
    ]
    assert model.describe_each(IMAGE, []) == []
    with pytest.raises(InvalidArgumentError, match="use describe for one"):
        model.describe_each(IMAGE, ana)
    with pytest.raises(InvalidArgumentError, match="got NoneType"):
        model.describe_each(IMAGE, [ana, None])


def test_describe_batch_takes_images_of_many_sizes(model, ana):
    images = [random_image(*size, seed) for seed, size in enumerate([(84, 84), (60, 200), (84, 84), (300, 90)])]
    pairs = [(image, who) for who in (None, ana) for image in images]
    assert model.describe_batch(pairs, **SHORT) == [model.describe(*pair, **SHORT) for pair in pairs]


def test_an_image_too_narrow_for_patches_is_told_before_anything_is_computed(model):
    model.clear_image_cache()
    with pytest.raises(InvalidImageError, match=r"^pair 2 of 2: .*900×2 pixels"):
        model.describe_batch([(random_image(84, 84), None), (random_image(900, 2), None)])
    assert model.report().cached_images == 0


def test_the_report_knows_any_resolution(model):
    least, most = model.report().image_tokens
    for size in ((1, 1), (84, 84), (1000, 1000), (20, 300)):
        _, height, width = model.encode_image(random_image(*size)).grid
        assert least <= height * width // 4 <= most
    assert f"{least} to {most} tokens" in str(model.report())


def test_stream_is_describe_in_pieces(model, ana):
    for persona in (ana, None):
        pieces = list(model.stream(IMAGE, persona, **SHORT))
        assert len(pieces) > 1
        assert "".join(pieces) == model.describe(IMAGE, persona, **SHORT)


def test_stream_checks_its_arguments_at_the_call(model, ana):
    with pytest.raises(InvalidArgumentError, match="temperature"):
        model.stream(IMAGE, ana, temperature=-1)
    with pytest.raises(InvalidArgumentError, match=r"'small' knows 'description', 'caption', got 'poem'"):
        model.stream(IMAGE, ana, style="poem")
    with pytest.raises(InvalidArgumentError, match=r"got str; read a persona file with Persona\.load"):
        model.stream(IMAGE, "ana.safetensors")


def test_astream_is_stream_and_leaves_the_loop_free(model, ana):
    async def collect():
        ticks = 0

        async def tick():
            nonlocal ticks
            while True:
                ticks += 1
                await asyncio.sleep(0)

        ticking = asyncio.create_task(tick())
        pieces = [piece async for piece in model.astream(IMAGE, ana, **SHORT)]
        ticking.cancel()
        return pieces, ticks

    pieces, ticks = asyncio.run(collect())
    assert pieces == list(model.stream(IMAGE, ana, **SHORT))
    assert ticks > len(pieces)


def test_astream_hands_errors_on(model, ana):
    async def first(image):
        return await anext(model.astream(image, ana))

    with pytest.raises(InvalidImageError, match="nowhere"):
        asyncio.run(first("nowhere.png"))


def test_astream_ends_the_work_when_it_is_left_or_cancelled():
    """On pieces that are counted, the third of which hangs until it is let go."""
    begun, let_go, closed, made = threading.Event(), threading.Event(), threading.Event(), []

    def pieces():
        try:
            for number in range(100):
                if number == 2:
                    begun.set()
                    let_go.wait(60)
                made.append(number)
                yield str(number)
        finally:
            closed.set()

    async def leave():
        stream = in_worker_threads(pieces())
        assert [await anext(stream), await anext(stream)] == ["0", "1"]
        assert made == [0, 1]  # nothing ahead of the consumer
        waiting = asyncio.create_task(anext(stream))
        assert await asyncio.to_thread(begun.wait, 60)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert not closed.is_set()
        let_go.set()
        await asyncio.to_thread(closed.wait, 60)

    asyncio.run(leave())
    assert closed.is_set()
    assert made == [0, 1, 2]

    closed.clear()

    async def close():
        stream = in_worker_threads(pieces())
        await anext(stream)
        await stream.aclose()
        await asyncio.to_thread(closed.wait, 60)

    asyncio.run(close())
    assert closed.is_set()


def test_one_model_serves_many_threads(model, ana, ben):
    alone = {who.name: model.describe(IMAGE, who, **SHORT) for who in (ana, ben)}
    seen = model.encode_image(IMAGE)
    with ThreadPoolExecutor(4) as pool:
        jobs = [(who, pool.submit(model.describe, seen, who, **SHORT)) for who in (ana, ben) * 6]
        assert all(job.result() == alone[who.name] for who, job in jobs)


def test_a_persona_of_another_encoder_is_refused_and_both_are_named(model, other_folder, ana):
    other = DeperModel.from_pretrained(other_folder, threads=1)
    told = rf"'ana'.*'{ana.encoder_fingerprint}' of 'small', but model 'other' has 'sha256:0+'"
    with pytest.raises(IncompatiblePersonaError, match=told):
        other.describe(IMAGE, ana)
    with pytest.raises(IncompatiblePersonaError, match=told):
        ana.add([make_sample(9)], other)
    with pytest.raises(IncompatiblePersonaError):
        other.describe_each(IMAGE, [Persona.from_samples([make_sample(1)], model=other), ana])
    with pytest.raises(InvalidArgumentError, match="encoded by another model"):
        other.describe(model.encode_image(IMAGE))


@pytest.mark.parametrize("image", ["nowhere.png", b"", b"not an image", 7, None, np.zeros((4, 4), np.uint8)])
def test_what_is_no_image_is_refused(model, ana, image):
    with pytest.raises(InvalidImageError):
        model.describe(image, ana)


def test_repr_says_what_it_is_and_where_it_runs(model):
    fingerprint = model.config.persona_encoder.fingerprint.removeprefix("sha256:")[:12]
    assert repr(model) == (
        f"DeperModel('small', vlm='random', encoder='{fingerprint}', styles=['description', 'caption'], "
        "provider='CPUExecutionProvider')"
    )


def test_a_users_text_never_becomes_a_special_token(model):
    from pydeper.persona.preprocess import description_ids

    ids = description_ids(model.persona_encoder.tokenizer, "a <subj> b<|im_end|>", 16)
    assert model.config.vlm.tokens.subject not in ids
    assert not set(model.config.vlm.tokens.end) & set(ids)
