import json
import struct
from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy
from safetensors.numpy import save as safetensors_save

import pydeper
from pydeper import IncompatiblePersonaError, InvalidArgumentError, Persona, PersonaError

patient = settings(suppress_health_check=[HealthCheck.too_slow])

SIZE = 384
METADATA = {
    "format_version": "1",
    "name": "ana",
    "model_id": "org/model",
    "model_revision": "0123abc",
    "encoder_fingerprint": "f" * 64,
    "num_samples": "5",
    "created": "2026-11-22T20:00:00+00:00",
    "pydeper_version": "0.1.0",
}


def vector(seed=0):
    return np.random.default_rng(seed).standard_normal(SIZE).astype(np.float32)


def persona(seed=0, **changes):
    fields = {"encoder_fingerprint": "f" * 64, "model_id": "org/model", "num_samples": 5, "name": "ana"}
    return Persona(subject_embedding=vector(seed), **fields | changes)


def written(path, tensors=None, metadata=METADATA):
    tensors = {"subject_embedding": vector()} if tensors is None else tensors
    path.write_bytes(safetensors_save(tensors, metadata))
    return path


texts = st.text(
    st.characters(codec="utf-8", exclude_categories=("Cc", "Cs", "Zl", "Zp")), min_size=1, max_size=256
).filter(str.strip)
embeddings = st_numpy.arrays(
    np.float32, SIZE, elements=st.floats(width=32, allow_nan=False, allow_infinity=False)
).filter(np.any)
moments = st.datetimes(timezones=st.integers(-720, 720).map(lambda m: timezone(timedelta(minutes=m))))


@patient
@given(
    embedding=embeddings,
    fingerprint=texts,
    model_id=texts,
    revision=st.none() | texts,
    num_samples=st.integers(1, 999_999_999),
    name=st.none() | texts,
    created=moments,
)
def test_what_is_saved_is_loaded(
    tmp_path_factory, embedding, fingerprint, model_id, revision, num_samples, name, created
):
    original = Persona(
        subject_embedding=embedding,
        encoder_fingerprint=fingerprint,
        model_id=model_id,
        model_revision=revision,
        num_samples=num_samples,
        name=name,
        created=created,
    )
    path = original.save(tmp_path_factory.getbasetemp() / "round-trip.safetensors")
    loaded = Persona.load(path)
    assert loaded == original
    assert hash(loaded) == hash(original)
    assert loaded.subject_embedding.tobytes() == embedding.tobytes()
    assert loaded.pydeper_version == pydeper.__version__


def test_the_file_is_what_the_format_promises(tmp_path):
    data = persona(model_revision="0123abc").save(tmp_path / "ana.safetensors").read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    assert header["__metadata__"].keys() == METADATA.keys()
    assert header["subject_embedding"] == {"dtype": "F32", "shape": [SIZE], "data_offsets": [0, 4 * SIZE]}
    assert data[8 + length :] == vector().tobytes()
    assert [path.name for path in tmp_path.iterdir()] == ["ana.safetensors"]


def test_a_persona_cannot_be_changed():
    ana = persona()
    with pytest.raises(AttributeError):
        ana.name = "ben"
    with pytest.raises(ValueError, match="read-only"):
        ana.subject_embedding[0] = 1
    with pytest.raises(ValueError, match="cannot set WRITEABLE"):
        ana.subject_embedding.flags.writeable = True
    mine = vector()
    kept = persona()
    mine[0] = 99
    assert kept.subject_embedding[0] != 99


def test_repr_tells_who_and_whose():
    assert repr(persona(name="ana", num_samples=1)) == (
        "Persona('ana', 1 sample, model='org/model', encoder='ffffffffffff')"
    )
    assert "unnamed, 5 samples" in repr(persona(name=None))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"subject_embedding": np.zeros(383, np.float32)}, r"shape \(384,\), got \(383,\)"),
        ({"subject_embedding": np.ones((1, SIZE))}, r"got \(1, 384\)"),
        ({"subject_embedding": np.full(SIZE, np.nan)}, "finite"),
        ({"subject_embedding": np.full(SIZE, 1e39)}, "number 0 is inf"),
        ({"subject_embedding": np.zeros(SIZE)}, "describes nobody"),
        ({"subject_embedding": ["a"] * SIZE}, "must be 384 numbers"),
        ({"num_samples": 0}, "from 1 to .*got 0"),
        ({"num_samples": True}, "got True"),
        ({"num_samples": 1.5}, "got 1.5"),
        ({"name": ""}, "name: must be a text"),
        ({"name": "a" * 257}, "1 to 256 characters"),
        ({"name": "a\nb"}, "line breaks"),
        ({"name": "\ud800"}, "control characters"),
        ({"created": datetime(2026, 1, 1)}, "time zone"),
        ({"encoder_fingerprint": " "}, "encoder_fingerprint"),
    ],
)
def test_impossible_values_are_refused(changes, told):
    fields = {"subject_embedding": vector(), "encoder_fingerprint": "f", "model_id": "m", "num_samples": 5} | changes
    with pytest.raises(PersonaError, match=told):
        Persona(**fields)


def test_a_file_cut_short_anywhere_is_refused(tmp_path):
    data = written(tmp_path / "whole").read_bytes()
    path = tmp_path / "cut"
    for length in range(len(data)):
        path.write_bytes(data[:length])
        with pytest.raises(PersonaError, match=r"cut: .*make or download the persona again"):
            Persona.load(path)


@patient
@given(data=st.binary(max_size=4096))
def test_no_bytes_bring_anything_but_a_persona_error(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "noise.safetensors"
    path.write_bytes(data)
    with pytest.raises(PersonaError):
        Persona.load(path)


@patient
@given(position=st.integers(0, 2000), value=st.integers(0, 255))
def test_a_changed_byte_gives_a_persona_or_a_persona_error(tmp_path_factory, position, value):
    path = tmp_path_factory.getbasetemp() / "changed.safetensors"
    data = bytearray(written(path).read_bytes())
    data[position % len(data)] = value
    path.write_bytes(data)
    try:
        loaded = Persona.load(path)
    except PersonaError:
        return
    assert np.isfinite(loaded.subject_embedding).all()


@pytest.mark.parametrize(
    ("tensors", "told"),
    [
        ({}, "got none"),
        ({"embedding": vector()}, "got 'embedding'"),
        ({"subject_embedding": vector(), "weights": vector()}, "alone, got 'subject_embedding', 'weights'"),
        ({"subject_embedding": vector()[:383]}, r"shape \[384\], got F32 of shape \[383\]"),
        ({"subject_embedding": vector()[None]}, r"got F32 of shape \[1, 384\]"),
        ({"subject_embedding": vector().astype(np.float16)}, "must be F32 .* got F16"),
        ({"subject_embedding": vector().view(np.int32)}, "must be F32 .* got I32"),
        ({"subject_embedding": np.full(SIZE, np.nan, np.float32)}, "number 0 is nan"),
        ({"subject_embedding": np.full(SIZE, -np.inf, np.float32)}, "number 0 is -inf"),
        ({"subject_embedding": np.zeros(SIZE, np.float32)}, "describes nobody"),
    ],
)
def test_other_tensors_are_refused(tmp_path, tensors, told):
    with pytest.raises(PersonaError, match=rf"odd\.safetensors: .*{told}"):
        Persona.load(written(tmp_path / "odd.safetensors", tensors))


@pytest.mark.parametrize("key", [key for key in METADATA if key not in ("name", "model_revision")])
def test_missing_metadata_is_named(tmp_path, key):
    metadata = {name: value for name, value in METADATA.items() if name != key}
    with pytest.raises(PersonaError, match=key):
        Persona.load(written(tmp_path / "p", metadata=metadata))


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("format_version", "2", r"reads personas of format 1, got 2: a newer pydeper wrote it; `pip install --upgrade"),
        ("format_version", "0", r"got 0, which is too old: make or download the persona again"),
        ("format_version", "1.0", r"got '1.0', which is not a whole number"),
        ("format_version", "١", "which is not a whole number"),
        ("num_samples", "0", "num_samples"),
        ("num_samples", "1e9", "num_samples"),
        ("num_samples", "9" * 10, "num_samples"),
        ("created", "yesterday", "ISO 8601"),
        ("created", "2026-11-22T20:00:00", "time zone"),
        ("name", "x" * 300, "1 to 256 characters"),
        ("name", "x\x1b[2J", "control characters"),
        ("name", "x\u202egnp.exe", "marks that turn the direction"),
        ("model_id", "org/\u2066model", "marks that turn the direction"),
        ("pydeper_version", "1\r\n2", "control characters"),
        ("model_id", "", "model_id"),
    ],
)
def test_impossible_metadata_is_refused(tmp_path, key, value, told):
    with pytest.raises(PersonaError, match=told):
        Persona.load(written(tmp_path / "p", metadata=METADATA | {key: value}))


def test_a_file_of_another_kind_is_refused(tmp_path):
    with pytest.raises(PersonaError, match="not a persona"):
        Persona.load(written(tmp_path / "p", metadata=None))
    with pytest.raises(PersonaError, match="longer than any persona file"):
        Persona.load(written(tmp_path / "p", metadata=METADATA | {"more": "x" * 70_000}))
    (tmp_path / "p").write_bytes(struct.pack("<Q", 2**40) + b"{}")
    with pytest.raises(PersonaError, match="not a safetensors file"):
        Persona.load(tmp_path / "p")
    with pytest.raises(PersonaError, match="cannot be read: No such file"):
        Persona.load(tmp_path / "missing.safetensors")
    with pytest.raises(PersonaError, match="cannot be read"):
        Persona.load(tmp_path)


def test_saving_replaces_whole_files_only(tmp_path):
    path = tmp_path / "ana.safetensors"
    persona(0).save(path)
    persona(1).save(str(path))
    assert Persona.load(path).subject_embedding.tobytes() == vector(1).tobytes()
    with pytest.raises(PersonaError, match=r"missing.* cannot be written"):
        persona().save(tmp_path / "missing" / "ana.safetensors")
    assert [entry.name for entry in tmp_path.iterdir()] == ["ana.safetensors"]


def test_similarity_is_the_cosine():
    ana, ben = persona(0), persona(1)
    a, b = vector(0).astype(float), vector(1).astype(float)
    assert ana.similarity(ben) == pytest.approx(np.dot(a, b) / np.sqrt(np.dot(a, a) * np.dot(b, b)))
    assert ana.similarity(ana) == pytest.approx(1)
    opposite = Persona(subject_embedding=-a, encoder_fingerprint="f" * 64, model_id="m", num_samples=1)
    assert ana.similarity(opposite) == pytest.approx(-1)
    with pytest.raises(IncompatiblePersonaError, match=r"'fff.*'.*and.*'ggg.*'"):
        ana.similarity(persona(1, encoder_fingerprint="g" * 64))


@patient
@given(embedding=embeddings)
def test_similarity_stays_in_range(embedding):
    one = Persona(subject_embedding=embedding, encoder_fingerprint="f" * 64, model_id="m", num_samples=1)
    assert -1 <= one.similarity(persona()) <= 1
    assert one.similarity(one) == pytest.approx(1)


def test_blend_is_the_weighted_mean():
    ana, ben = persona(0, num_samples=2), persona(1, num_samples=3)
    mixed = Persona.blend([ana, ben], weights=[7, 3], name="both")
    np.testing.assert_allclose(mixed.subject_embedding, 0.7 * vector(0) + 0.3 * vector(1), rtol=1e-6, atol=1e-7)
    assert (mixed.name, mixed.num_samples) == ("both", 5)
    even = Persona.blend([ana, ben])
    np.testing.assert_allclose(even.subject_embedding, (vector(0) + vector(1)) / 2, rtol=1e-6, atol=1e-7)
    assert even.name is None
    alone = Persona.blend([ana, ben], weights=[1e-320, 0])
    np.testing.assert_array_equal(alone.subject_embedding, ana.subject_embedding)


@pytest.mark.parametrize("weights", [[1], [1, 1, 1], [-1, 2], [0, 0], [np.nan, 1], [np.inf, 1], ["a", "b"], [[1, 1]]])
def test_blend_refuses_weights_that_do_not_fit(weights):
    with pytest.raises(InvalidArgumentError, match="weights"):
        Persona.blend([persona(0), persona(1)], weights=weights)


def test_blend_refuses_personas_that_do_not_fit():
    with pytest.raises(InvalidArgumentError, match="at least one Persona"):
        Persona.blend([])
    with pytest.raises(InvalidArgumentError, match="str"):
        Persona.blend(["ana.safetensors"])
    with pytest.raises(IncompatiblePersonaError):
        Persona.blend([persona(0), persona(1, encoder_fingerprint="g")])
    opposite = Persona(subject_embedding=-vector(), encoder_fingerprint="f" * 64, model_id="m", num_samples=1)
    with pytest.raises(PersonaError, match="describes nobody"):
        Persona.blend([persona(), opposite])


def test_samples_that_are_none_are_refused():
    with pytest.raises(InvalidArgumentError, match="got none"):
        Persona.from_samples([])
    with pytest.raises(InvalidArgumentError, match="read_samples"):
        Persona.from_samples("ana.jsonl")
    with pytest.raises(InvalidArgumentError, match=r"sample 1 must be a pydeper\.Sample, got dict"):
        Persona.from_samples([{"image": "a.png"}])
    with pytest.raises(InvalidArgumentError, match="got none"):
        persona().add([])


def test_samples_of_several_people_are_refused():
    samples = [pydeper.Sample(image=b"-", description="a", subject=name) for name in ("ben", "ana", "ben")]
    with pytest.raises(InvalidArgumentError, match=r"2 subjects \('ana', 'ben'\)"):
        Persona.from_samples(samples)


def test_names_that_could_leave_a_folder_are_refused_on_the_hub():
    for name in ("../ana", "a/b", "", ".hidden", "a..b", "a\\b", "x" * 97):
        with pytest.raises(PersonaError, match="name"):
            Persona.from_pretrained("org/personas", name, local_files_only=True)
    for repo in ("personas", "a/b/c", "../x/y", "org/", "/tmp/x", "org/..", "o rg/x"):
        with pytest.raises(PersonaError, match="repo_id"):
            Persona.from_pretrained(repo, "ana", local_files_only=True)
    with pytest.raises(PersonaError, match="no name to publish"):
        persona(name=None).push_to_hub("org/personas")


def test_a_persona_from_the_hubs_cache(tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = tmp_path / "models--org--personas"
    snapshot = repository / "snapshots" / commit
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    persona().save(snapshot / "ana.safetensors")
    loaded = Persona.from_pretrained("org/personas", "ana", local_files_only=True)
    assert loaded == persona(created=loaded.created)
    with pytest.raises(PersonaError, match="not in the local cache"):
        Persona.from_pretrained("org/personas", "ben", local_files_only=True)
    with pytest.raises(PersonaError, match="not in the local cache"):
        Persona.from_pretrained("org/others", "ana", local_files_only=True)


def test_a_hub_that_cannot_be_reached_is_a_persona_error(monkeypatch):
    import socket

    from huggingface_hub import constants

    with socket.socket() as taken:  # a port of our own on which nobody listens
        taken.bind(("127.0.0.1", 0))
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{taken.getsockname()[1]}")
        monkeypatch.setenv("HF_TOKEN", "hf_none")
        with pytest.raises(
            PersonaError, match=r"repository 'org/none': the Hugging Face Hub could not be used: .*refused"
        ):
            persona().push_to_hub("org/none", synthetic=True)


def test_created_is_now_by_default():
    before = datetime.now(UTC).replace(microsecond=0)
    assert before <= persona().created <= datetime.now(UTC)
