from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pydeper import BundleError, InvalidArgumentError
from pydeper.bundle.config import Precision
from pydeper.bundle.vlm_files import VLMFiles, choose_files, find_files, precisions_of, unneeded_files

PARTS = ("vision_encoder", "embed_tokens", "decoder_model_merged")
SUFFIXES = {
    "": "fp32",
    "_fp16": "fp16",
    "_int8": "int8",
    "_uint8": "int8",
    "_quantized": "int8",
    "_q4": "int4",
    "_q4f16": "int4",
    "_bnb4": "int4",
}


def write(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def names_of(files: VLMFiles, folder: Path) -> list[str]:
    parts = (files.vision_encoder, files.embeddings, files.decoder)
    return [path.relative_to(folder).as_posix() for path in parts]


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """As onnx-community/Qwen2-VL-2B-Instruct is laid out: three parts in eight forms, the widest with outside data."""
    write(tmp_path, "config.json", "tokenizer.json", "README.md")
    write(tmp_path, *(f"onnx/{part}{suffix}.onnx" for part in PARTS for suffix in SUFFIXES))
    return write(tmp_path, *(f"onnx/{part}.onnx_data" for part in PARTS), "onnx/decoder_model_merged.onnx_data_1")


@pytest.mark.parametrize(
    ("precision", "vision", "embeddings", "decoder"),
    [
        ("fp32", "", "", ""),
        ("fp16", "_fp16", "_fp16", "_fp16"),
        ("int8", "_quantized", "_quantized", "_quantized"),
        ("int4", "_quantized", "_q4", "_q4"),
    ],
)
def test_a_published_repository(
    published: Path, precision: Precision, vision: str, embeddings: str, decoder: str
) -> None:
    files = find_files(published, precision)
    assert files.precision == precision
    assert files.prefill is None
    assert names_of(files, published) == [
        f"onnx/vision_encoder{vision}.onnx",
        f"onnx/embed_tokens{embeddings}.onnx",
        f"onnx/decoder_model_merged{decoder}.onnx",
    ]


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("home", ["", "onnx/"])
def test_every_form_is_found_alone(tmp_path: Path, suffix: str, home: str) -> None:
    names = [f"{home}{part}{suffix}.onnx" for part in PARTS]
    write(tmp_path, *names)
    files = find_files(tmp_path)
    assert (files.precision, names_of(files, tmp_path)) == (SUFFIXES[suffix], names)
    assert find_files(tmp_path, files.precision) == files


@pytest.mark.parametrize(
    ("there", "chosen"),
    [
        (["", "_fp16", "_int8", "_q4"], "_int8"),
        (["", "_fp16", "_q4"], "_fp16"),
        (["", "_q4"], ""),
        (["_q4", "_q4f16"], "_q4"),
        (["_q4f16", "_uint8"], "_uint8"),
    ],
)
def test_a_4_bit_vision_encoder_is_the_last_choice(tmp_path: Path, there: list[str], chosen: str) -> None:
    write(tmp_path, "decoder_model_merged_q4.onnx", "embed_tokens.npy", *(f"vision_encoder{s}.onnx" for s in there))
    assert find_files(tmp_path).vision_encoder.name == f"vision_encoder{chosen}.onnx"


def test_a_bundles_own_files(tmp_path: Path) -> None:
    write(tmp_path, "decoder_model_merged_q4.onnx", "decoder_model_merged_int8.onnx", "decoder_layers_int8.onnx")
    write(tmp_path, "vision_encoder_int8.onnx", "embed_tokens.npy", "embed_tokens.onnx", "embed_tokens_q4.onnx")
    int4 = find_files(tmp_path, "int4")
    assert int4.embeddings == tmp_path / "embed_tokens.npy"
    assert int4.prefill == tmp_path / "decoder_layers_int8.onnx"
    assert find_files(tmp_path, "int8").prefill == int4.prefill
    write(tmp_path, "decoder_model_merged.onnx")
    assert find_files(tmp_path, "fp32").prefill is None
    # The layers' weights are an array of the same name.
    names = [path.name for path in write(tmp_path, "decoder_layers_int8.npy").iterdir()]
    layers = {"decoder_layers_int8.onnx", "decoder_layers_int8.npy"}
    assert not layers & set(unneeded_files(names, choose_files(names, "int4", "here")))
    assert layers < set(unneeded_files(names, choose_files(names, "fp32", "here")))


def test_the_folder_itself_wins_over_its_subfolder(tmp_path: Path) -> None:
    write(tmp_path, *(f"{home}{part}.onnx" for part in PARTS for home in ("", "onnx/")))
    assert find_files(tmp_path).decoder == tmp_path / "decoder_model_merged.onnx"


def test_what_is_not_there_is_said_with_what_is(published: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"several precisions \(fp32, fp16, int8, int4\); say which"):
        find_files(published)
    for path in published.glob("onnx/decoder_model_merged*_*"):
        path.unlink()
    with pytest.raises(BundleError, match=r"does not hold the VLM in int4, only in fp32$"):
        find_files(published, "int4")
    with pytest.raises(InvalidArgumentError, match=r"'fp32', 'fp16', 'int8', 'int4' or None, got 'q4'"):
        find_files(published, "q4")  # type: ignore[arg-type]
    for part in ("embed_tokens", "vision_encoder"):
        for path in published.glob(f"onnx/{part}*"):
            path.unlink()
        with pytest.raises(BundleError, match=rf"holds a decoder, but no {part}\*\.onnx"):
            find_files(published)
        write(published, f"onnx/{part}.onnx")
    (published / "onnx" / "decoder_model_merged.onnx").unlink()
    (published / "onnx" / "decoder_model_merged.onnx").mkdir()
    for folder in (published, tmp_path / "nowhere", published / "config.json"):
        with pytest.raises(BundleError, match=r"holds no VLM: decoder_model_merged\*\.onnx"):
            find_files(folder)


def test_a_choice_needs_its_graphs_and_their_data_alone(published: Path) -> None:
    names = [path.relative_to(published).as_posix() for path in published.rglob("*") if path.is_file()]
    chosen = choose_files(names, "fp32", "here")
    unneeded = unneeded_files(names, chosen)
    assert set(names) - set(unneeded) == {
        "config.json",
        "tokenizer.json",
        "README.md",
        *(f"onnx/{part}.onnx{data}" for part in PARTS for data in ("", "_data")),
        "onnx/decoder_model_merged.onnx_data_1",
    }


@given(st.sets(st.sampled_from([f"{part}{suffix}.onnx" for part in PARTS for suffix in SUFFIXES])), st.data())
def test_any_folder_gives_a_complete_choice_or_says_what_is_missing(names: set[str], data: st.DataObject) -> None:
    precision = data.draw(st.sampled_from([None, *get_args(Precision)]))
    there = precisions_of(names)
    try:
        chosen = choose_files(names, precision, "here")
    except BundleError:
        parts = {part for part in PARTS for name in names if name.startswith(part)}
        assert parts != set(PARTS) or (precision not in there and (precision or len(there) != 1))
        return
    needed = {chosen.vision_encoder.name, chosen.embeddings.name, chosen.decoder.name}
    assert needed <= names
    assert chosen.precision in there
    assert precision in (None, chosen.precision)
    assert set(unneeded_files(names, chosen)) == names - needed
    # What is fetched is chosen again when it is looked for on disk.
    assert choose_files(needed, chosen.precision, "here") == chosen
