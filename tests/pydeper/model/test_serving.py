"""What apps do with a model: many images, many people, many threads, little memory. On the built-in model."""

import asyncio
import gc
import json
import re
import subprocess
import sys
import textwrap
import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper
from PIL import Image

import pydeper
from pydeper import (
    BundleError,
    DeperModel,
    IncompatiblePersonaError,
    InvalidArgumentError,
    InvalidImageError,
    OutOfMemoryError,
    Persona,
    PydeperError,
)
from pydeper.bundle.layout import BUILTIN
from pydeper.runtime import devices
from tests.support.images import random_image
from tests.support.paths import ROOT

DEMO = BUILTIN / "tiny" / "demo"
SHORT = {"max_new_tokens": 8}
CPU_ONLY = "CUDAExecutionProvider" not in onnxruntime.get_available_providers()


@pytest.fixture(scope="module")
def tiny() -> DeperModel:
    """Without a cache, so that tests count what is encoded for themselves."""
    return DeperModel.from_pretrained("tiny", device="cpu", threads=1, image_cache=0)


@pytest.fixture
def cached() -> DeperModel:
    return DeperModel.from_pretrained("tiny", device="cpu", threads=1, image_cache=2)


@pytest.fixture(scope="module")
def ana(tiny: DeperModel) -> Persona:
    return Persona.from_samples(pydeper.read_samples(DEMO / "ana.jsonl"), model=tiny)


@pytest.fixture(scope="module")
def ben(tiny: DeperModel) -> Persona:
    return Persona.from_samples(pydeper.read_samples(DEMO / "ben.jsonl"), model=tiny)


@pytest.fixture(scope="module")
def pictures() -> list[Path]:
    return [DEMO / name for name in ("scene.png", "ana-1.png", "ana-2.png", "ben-1.png")]


class Watched:
    """A model's VLM that works as ever, and tells what it was asked to do."""

    def __init__(self, vlm: Any) -> None:
        self._vlm = vlm
        self.encoded: list[weakref.ref[Any]] = []
        self.rows: list[int] = []
        self.steps = 0
        self.held_at_once = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._vlm, name)

    def encode_image(self, image: Image.Image) -> Any:
        encoded = self._vlm.encode_image(image)
        self.encoded.append(weakref.ref(encoded))
        self.held_at_once = max(self.held_at_once, self.alive())
        return encoded

    def generate(self, encoded: Any, style: str, soft_tokens: Any, options: Any) -> Any:
        rows = len(encoded) if isinstance(encoded, Sequence) else 1 if soft_tokens is None else len(soft_tokens)
        self.rows.append(rows)
        return self._vlm.generate(encoded, style, soft_tokens, options)

    def stream(self, *arguments: Any) -> Iterator[str]:
        return self._counted(self._vlm.stream(*arguments))

    def _counted(self, pieces: Iterator[str]) -> Iterator[str]:
        for piece in pieces:
            self.steps += 1
            yield piece

    def alive(self) -> int:
        return sum(reference() is not None for reference in self.encoded)


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Callable[[DeperModel], Watched]:
    def of(model: DeperModel) -> Watched:
        watched = Watched(model._vlm)
        monkeypatch.setattr(model, "_vlm", watched)
        return watched

    return of


# The cache of encoded images


def test_an_image_is_encoded_once_however_it_is_given(
    cached: DeperModel, watch: Callable[[DeperModel], Watched], ana: Persona, pictures: list[Path]
) -> None:
    watched = watch(cached)
    with Image.open(pictures[0]) as opened:
        array = np.asarray(opened.convert("RGB"))
    for image in (pictures[0], str(pictures[0]), pictures[0].read_bytes(), array, Image.fromarray(array)):
        cached.describe(image, ana, **SHORT)
        list(cached.stream(image, **SHORT))
        cached.describe_each(image, [ana], **SHORT)
        cached.describe_batch([(image, ana)], **SHORT)
        assert cached.encode_image(image) is watched.encoded[0]()
    assert len(watched.encoded) == 1
    report = cached.report()
    assert report.cached_images == 1
    assert report.cached_bytes == watched.encoded[0]().nbytes > 0
    cached.clear_image_cache()
    assert cached.report().cached_images == 0
    gc.collect()
    assert watched.alive() == 0
    cached.describe(pictures[0], ana, **SHORT)
    assert len(watched.encoded) == 2


def test_the_images_asked_for_last_are_kept(
    cached: DeperModel, watch: Callable[[DeperModel], Watched], pictures: list[Path]
) -> None:
    watched = watch(cached)
    for number, encodings in ((0, 1), (1, 2), (0, 2), (2, 3), (0, 3), (1, 4), (2, 5)):
        cached.describe(pictures[number], **SHORT)
        assert len(watched.encoded) == encodings
    assert cached.report().cached_images == 2


def test_a_file_that_has_changed_is_another_image(
    cached: DeperModel, tiny: DeperModel, pictures: list[Path], tmp_path: Path
) -> None:
    path = tmp_path / "scene.png"
    for picture in (pictures[0], pictures[1], pictures[0]):
        path.write_bytes(picture.read_bytes())
        assert cached.describe(path, **SHORT) == tiny.describe(picture, **SHORT)


def test_without_a_cache_nothing_is_kept(
    tiny: DeperModel, watch: Callable[[DeperModel], Watched], pictures: list[Path]
) -> None:
    watched = watch(tiny)
    for _ in range(2):
        tiny.describe(pictures[0], **SHORT)
    gc.collect()
    assert len(watched.encoded) == 2
    assert watched.alive() == 0
    assert (tiny.report().image_cache, tiny.report().cached_images) == (0, 0)


@pytest.mark.parametrize("images", [-1, 1.5, True, "4", None])
def test_an_impossible_cache_is_refused(images: Any) -> None:
    with pytest.raises(InvalidArgumentError, match="image_cache: must be a whole number from 0"):
        DeperModel.from_pretrained("tiny", image_cache=images)


# Many images, many people


def test_a_batch_is_describe_for_each_pair(
    tiny: DeperModel,
    watch: Callable[[DeperModel], Watched],
    ana: Persona,
    ben: Persona,
    pictures: list[Path],
) -> None:
    watched = watch(tiny)
    images = [pictures[0], pictures[1].read_bytes(), Image.open(pictures[2]), str(pictures[3]), pictures[0]]
    pairs = [(image, who) for who in (ana, None, ben, ana) for image in images]
    options: dict[str, Any] = {"style": "caption" if "caption" in tiny.styles else "description", **SHORT}
    for further in ({}, {"temperature": 1.0, "top_p": 0.9, "seed": 3}, {"strength": 1.5, "repetition_penalty": 1.2}):
        watched.encoded.clear()
        watched.rows.clear()
        found = tiny.describe_batch(iter(pairs), **options, **further)
        assert len(watched.encoded) == 4
        assert watched.held_at_once <= 8
        assert max(watched.rows) <= 8
        assert sum(watched.rows) == len(pairs)
        assert found == [tiny.describe(image, who, **options, **further) for image, who in pairs]
    gc.collect()
    assert watched.alive() == 0


def test_a_batch_of_many_images_holds_few_at_once(
    tiny: DeperModel, watch: Callable[[DeperModel], Watched], ana: Persona
) -> None:
    watched = watch(tiny)
    images = [random_image(84, 84, seed) for seed in range(20)]
    texts = tiny.describe_batch([(image, ana) for image in images] + [(images[7], ana)], max_new_tokens=2)
    assert texts[7] == texts[20]
    assert len(watched.encoded) == 20
    assert watched.held_at_once <= 8


def test_a_batch_takes_encoded_images_among_others(
    tiny: DeperModel, watch: Callable[[DeperModel], Watched], ana: Persona, pictures: list[Path]
) -> None:
    seen = tiny.encode_image(pictures[0])
    watched = watch(tiny)
    texts = tiny.describe_batch([(pictures[1], ana), (seen, ana), (seen, None), (pictures[0], ana)], **SHORT)
    assert texts[1] == texts[3] == tiny.describe(seen, ana, **SHORT)
    assert texts[2] == tiny.describe(seen, **SHORT)
    assert len(watched.encoded) == 2


def test_an_empty_batch_is_no_work(tiny: DeperModel) -> None:
    assert tiny.describe_batch([]) == []
    with pytest.raises(InvalidArgumentError, match="temperature"):
        tiny.describe_batch([], temperature=-1)


@pytest.mark.parametrize(
    ("third", "options", "error", "told"),
    [
        (("nowhere.png", None), {}, InvalidImageError, r"^pair 3 of 3: image 'nowhere.png' does not exist"),
        ((b"cut", None), {}, InvalidImageError, r"^pair 3 of 3: image given as 3 bytes"),
        ((None, None), {}, InvalidImageError, r"^pair 3 of 3: NoneType None is not an image"),
        (("SCENE", "ana.safetensors"), {}, InvalidArgumentError, r"^pair 3 of 3: persona: .* got str; read a persona"),
        (("SCENE", "STRANGER"), {}, IncompatiblePersonaError, r"^pair 3 of 3: persona 'ana' was made by"),
        (("FOREIGN", None), {}, InvalidArgumentError, r"^pair 3 of 3: .* encoded by another model"),
        ("SCENE", {}, InvalidArgumentError, r"pair 3 of 3 must be \(image, persona\).* got PosixPath"),
        (("SCENE", None, None), {}, InvalidArgumentError, r"pair 3 of 3 must be .* got tuple of length 3"),
        (("SCENE", None), {"style": "poem"}, InvalidArgumentError, "'tiny' knows"),
        (("SCENE", None), {"repetition_penalty": 0.5}, InvalidArgumentError, "repetition_penalty must be 1"),
    ],
)
def test_mistakes_in_a_batch_are_told_before_anything_is_computed(
    tiny: DeperModel,
    cached: DeperModel,
    watch: Callable[[DeperModel], Watched],
    ana: Persona,
    pictures: list[Path],
    third: Any,
    options: dict[str, Any],
    error: type[PydeperError],
    told: str,
) -> None:
    known = {
        "SCENE": pictures[0],
        "STRANGER": attrs.evolve(ana, encoder_fingerprint="sha256:0"),
        "FOREIGN": cached.encode_image(pictures[0]),
    }
    if isinstance(third, tuple):
        third = tuple(known.get(part, part) if isinstance(part, str) else part for part in third)
    else:
        third = known[third]
    watched = watch(tiny)
    with pytest.raises(error, match=told):
        tiny.describe_batch([(pictures[0], ana), (pictures[1], None), third], **options)
    assert watched.encoded == []


@pytest.mark.parametrize("pairs", [None, 7, "scene.png", {"scene.png": None}])
def test_what_is_no_list_of_pairs_is_refused(tiny: DeperModel, pairs: Any) -> None:
    with pytest.raises(InvalidArgumentError, match=r"^pairs: "):
        tiny.describe_batch(pairs)


def test_an_image_that_goes_while_the_batch_runs_is_named(
    tiny: DeperModel, pictures: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "soon gone.png"
    path.write_bytes(pictures[0].read_bytes())
    original = tiny._checked_key

    def check_and_remove(pair: Any, *arguments: Any) -> str:
        key = original(pair, *arguments)
        path.unlink(missing_ok=True)
        return key

    monkeypatch.setattr(tiny, "_checked_key", check_and_remove)
    with pytest.raises(InvalidImageError, match=r"^pair 1 of 2: .*soon gone\.png' does not exist"):
        tiny.describe_batch([(path, None), (pictures[1], None)], **SHORT)


def test_repetition_is_penalised_wherever_it_can_be_asked_for(tiny: DeperModel, ana: Persona) -> None:
    scene, options = DEMO / "scene.png", {"repetition_penalty": 3.0, "max_new_tokens": 24}
    penalised = tiny.describe(scene, ana, **options)
    assert penalised != tiny.describe(scene, ana, max_new_tokens=24)
    words = [word.strip(",.") for word in penalised.split()]
    plain = [word.strip(",.") for word in tiny.describe(scene, ana, max_new_tokens=24).split()]
    assert len(set(words)) / len(words) > len(set(plain)) / len(plain)
    assert "".join(tiny.stream(scene, ana, **options)) == penalised
    assert tiny.describe_each(scene, [ana], **options) == [penalised]
    assert tiny.describe_batch([(scene, ana)], **options) == [penalised]


# Threads, and ending early


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
    tiny: DeperModel, watch: Callable[[DeperModel], Watched], ana: Persona, pictures: list[Path], how: str
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
    tiny: DeperModel, watch: Callable[[DeperModel], Watched], ana: Persona, pictures: list[Path]
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


# Memory


@pytest.fixture(scope="module")
def greedy_session() -> onnxruntime.InferenceSession:
    """A graph that asks for as many numbers as it is told."""
    graph = helper.make_graph(
        [helper.make_node("Expand", ["x", "shape"], ["y"])],
        "greedy",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [helper.make_tensor("shape", TensorProto.INT64, [1], [2**45])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def run_out(session: onnxruntime.InferenceSession | None) -> None:
    """Really: of ONNX Runtime's memory, or of numpy's."""
    if session is None:
        np.empty(2**47, np.float32)
    else:
        session.run(None, {"x": np.ones(1, np.float32)})


@pytest.mark.parametrize("whose", ["ONNX Runtime", "numpy"])
def test_memory_that_runs_out_while_an_image_is_encoded(
    cached: DeperModel,
    ana: Persona,
    pictures: list[Path],
    greedy_session: onnxruntime.InferenceSession,
    monkeypatch: pytest.MonkeyPatch,
    whose: str,
) -> None:
    good = cached.describe(pictures[1], ana, **SHORT)
    with monkeypatch.context() as patch:
        patch.setattr(
            cached._vlm, "encode_image", lambda _: run_out(greedy_session if whose == "ONNX Runtime" else None)
        )
        asked = r"128\.0 TiB" if whose == "ONNX Runtime" else "512 TiB"
        told = rf"^out of memory while encoding an image of 336×336 pixels \({asked} were asked for\): .*`precision`"
        with pytest.raises(OutOfMemoryError, match=told) as caught:
            cached.describe(pictures[0], ana)
        assert isinstance(caught.value, PydeperError)
        assert isinstance(caught.value, MemoryError)
        with pytest.raises(OutOfMemoryError, match=r"^pair 2 of 2: out of memory while encoding"):
            cached.describe_batch([(pictures[1], ana), (pictures[0], ana)], **SHORT)
        assert cached.report().cached_images == 1
        assert cached.describe(pictures[1], ana, **SHORT) == good  # what was kept is still there
    assert cached.describe(pictures[0], ana, **SHORT)


def test_memory_that_runs_out_while_describing_is_let_go_of(
    tiny: DeperModel,
    ana: Persona,
    ben: Persona,
    pictures: list[Path],
    greedy_session: onnxruntime.InferenceSession,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Bulky(np.ndarray):
        """An array that can be watched."""

    held: list[weakref.ref[Any]] = []

    def fill_and_run_out(*_: Any) -> Any:
        bulk = np.zeros(10).view(Bulky)
        held.append(weakref.ref(bulk))
        run_out(greedy_session)

    def stream(*_: Any) -> Iterator[str]:
        yield "A"
        fill_and_run_out()

    with monkeypatch.context() as patch:
        patch.setattr(tiny._vlm, "generate", fill_and_run_out)
        patch.setattr(tiny._vlm, "stream", stream)
        errors = []
        with pytest.raises(OutOfMemoryError, match=r"while computing 2 descriptions at once .*fewer people") as caught:
            tiny.describe_each(pictures[0], [ana, ben])
        errors.append(caught.value)
        pieces = tiny.stream(pictures[0], ana)
        assert next(pieces) == "A"
        with pytest.raises(OutOfMemoryError, match="while describing an image") as caught:
            next(pieces)
        errors.append(caught.value)
        # Also while the errors are still held on to, as they are in a log or an interactive session.
        assert [reference() for reference in held] == [None, None]


def test_an_error_that_is_not_about_memory_stays_what_it_is(
    tiny: DeperModel, pictures: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: Any) -> None:
        raise RuntimeError("failed to allocate a licence")

    monkeypatch.setattr(tiny._vlm, "encode_image", fail)
    with pytest.raises(RuntimeError, match="licence"):
        tiny.describe(pictures[0])


@pytest.mark.skipif(sys.platform != "linux", reason="needs the system's limit on memory")
def test_a_picture_larger_than_the_memory_there_is(tmp_path: Path) -> None:
    Image.new("L", (9000, 9000)).save(tmp_path / "vast.png")
    program = textwrap.dedent(
        f"""
        import re, resource
        from pathlib import Path
        from pydeper import DeperModel, OutOfMemoryError
        model = DeperModel.from_pretrained("tiny", threads=1)
        text = model.describe({str(DEMO / "scene.png")!r})
        used = int(re.search(r"VmSize:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024
        resource.setrlimit(resource.RLIMIT_AS, (used + 150 * 2**20, resource.RLIM_INFINITY))
        try:
            model.describe("vast.png")
        except OutOfMemoryError as error:
            print(error)
        assert model.report().cached_images == 1
        assert model.describe({str(DEMO / "scene.png")!r}) == text
        """
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("out of memory while reading an image")
    assert "make the image smaller" in done.stdout


# What the reference page shows


def test_the_reference_page_shows_what_works(
    tiny: DeperModel, ana: Persona, ben: Persona, capsys: pytest.CaptureFixture[str]
) -> None:
    page = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")
    names = {"DeperModel": DeperModel, "ana": ana, "ben": ben, "scene": DEMO / "scene.png"}
    for block in re.findall(r"^```python\n(.*?)^```$", page, flags=re.S | re.M):
        exec(block, names)
    assert names["texts"] == [tiny.describe(names["scene"], who) for who in (ana, ben, None)]
    assert names["text"] == names["texts"][0]
    assert "auto -> " in capsys.readouterr().out


# The report


def test_the_report_says_what_runs_where(tiny: DeperModel) -> None:
    report = tiny.report()
    assert (report.model_id, report.revision, report.device, report.threads) == ("tiny", None, "cpu", 1)
    assert report.provider == "CPU, as asked"
    assert report.vlm["precision"]
    assert (report.image_size, report.image_tokens) == ("84×84 pixels", (9, 9))
    assert report.context_length == tiny.config.vlm.max_positions
    assert onnxruntime.__version__ in report.runtime
    told = str(report)
    for fact in ("tiny", "cpu -> CPU, as asked", "84×84 pixels, 9 tokens", "off", report.vlm["precision"]):
        assert fact in told
    assert len({line.index(line.split(":", 1)[1].lstrip()) for line in told.splitlines()}) == 1  # one column
    assert json.loads(json.dumps(attrs.asdict(report)))["context_length"] == report.context_length


@pytest.mark.parametrize(
    ("available", "taken", "told"),
    [
        (["CPUExecutionProvider"], ["CPUExecutionProvider"], "CPU: this ONNX Runtime has no CUDAExecutionProvider"),
        (
            ["CUDAExecutionProvider", "CPUExecutionProvider"],
            ["CPUExecutionProvider"],
            "CPU: this ONNX Runtime has CUDAExecutionProvider, but CUDA or cuDNN could not be loaded",
        ),
        (
            ["CUDAExecutionProvider", "CPUExecutionProvider"],
            ["CUDAExecutionProvider", "CPUExecutionProvider"],
            "CUDA: this ONNX Runtime has CUDAExecutionProvider",
        ),
    ],
)
def test_auto_says_what_it_took_and_why(
    monkeypatch: pytest.MonkeyPatch, available: list[str], taken: list[str], told: str
) -> None:
    monkeypatch.setattr(devices, "available_providers", lambda: available)
    assert devices.explain_device("auto", taken).startswith(told)


@pytest.mark.skipif(not CPU_ONLY, reason="CUDA is there")
def test_auto_takes_the_cpu_where_there_is_nothing_else() -> None:
    report = DeperModel.from_pretrained("tiny").report()
    assert report.device == "auto"
    assert report.provider == "CPU: this ONNX Runtime has no CUDAExecutionProvider"
    assert report.threads is None


# Precision


def test_a_precision_is_one_that_the_model_comes_in(pictures: list[Path], tiny: DeperModel) -> None:
    there = tiny.report().vlm["precision"].split()[0]
    chosen = DeperModel.from_pretrained("tiny", threads=1, precision=there)
    assert chosen.describe(pictures[0], **SHORT) == tiny.describe(pictures[0], **SHORT)
    missing = next(precision for precision in ("int4", "int8") if precision != there)
    with pytest.raises(BundleError, match=f"does not hold the VLM in {missing}, only in {there}"):
        DeperModel.from_pretrained("tiny", precision=missing)
    with pytest.raises(InvalidArgumentError, match="precision: must be one of 'fp32', 'fp16', 'int8', 'int4'"):
        DeperModel.from_pretrained("tiny", precision="int2")
