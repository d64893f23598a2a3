"""Writes the golden files of the present formats: `python tests/golden/make.py FOLDER`.

What lies in `format-1` was written once, by this script, when the formats were new, and is never written again: every
later version must read it. When a format changes, this script changes with it and writes `format-2` beside it; see
docs/versioning.md.

The model in it has the smallest graphs that do what a bundle's must: they average, multiply and look up.
"""

import sys
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from tokenizers import Tokenizer

from export.bundle.assemble import assemble, with_fingerprint
from pydeper import Fixation, Persona, Sample, Trajectory, write_samples
from pydeper.bundle.config import (
    BundleConfig,
    ImageEncoderInfo,
    PersonaEncoderConfig,
    Prompts,
    PromptStyle,
    SpecialTokens,
    VisionConfig,
    VLMConfig,
)
from training.tiny.tokenizer import SPECIAL_TOKENS, build_tokenizer

WORDS = "a red circle and a blue square beside a large green star"
ENDS = ("<|im_end|>", "<|endoftext|>")
HIDDEN, HEAD, SIDE = 8, 4, 28
FLOAT, INT = TensorProto.FLOAT, TensorProto.INT64


def embedding() -> np.ndarray:
    """384 numbers that float32 holds exactly."""
    return ((np.arange(384) - 191.5) / 256).astype(np.float32)


def persona(fingerprint: str) -> Persona:
    """The golden persona; its texts are of several scripts."""
    return Persona(
        subject_embedding=embedding(),
        encoder_fingerprint=fingerprint,
        model_id="golden",
        model_revision="0123456789abcdef0123456789abcdef01234567",
        num_samples=5,
        name="Ana María 李 عائشة",
        created=datetime(2026, 11, 23, 4, 5, 6, tzinfo=UTC),
        pydeper_version="0.1.0",
    )


def samples(image: Path) -> list[Sample]:
    """One sample of each kind."""
    looked = Trajectory([Fixation((0.1, 0.2, 0.4, 0.6), 0.31), Fixation((0.5, 0.5, 1.0, 1.0), 0.125)])
    return [
        Sample(image=image, description="A red square, then nothing.", trajectory=looked, subject="ana", split="train"),
        Sample(image=image, description="Ein rotes Quadrat – 四角 🟥", subject="ana"),
        Sample(image=image, trajectory=looked, subject="ana", split="val"),
    ]


def save_graph(path: Path, nodes: list, inputs: dict, outputs: dict, weights: dict) -> Path:
    """Writes an ONNX file; shapes are given with names where they may vary."""
    values = [
        [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in table.items()]
        for table in (inputs, outputs)
    ]
    tensors = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    graph = helper.make_graph(nodes, "golden", *values, tensors)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path


def save_persona_encoder(path: Path, rng: np.random.Generator) -> Path:
    """Means of pixels, ids, boxes and durations, by one matrix; masked as the real one is."""
    node = helper.make_node
    nodes = [
        node("ReduceMean", ["pixel_values", "axes_23"], ["pixels"], keepdims=0),
        node("Mul", ["input_ids", "attention_mask"], ["ids"]),
        node("Cast", ["ids"], ["ids_f"], to=FLOAT),
        node("ReduceMean", ["ids_f", "axis_1"], ["mean_id"], keepdims=1),
        node("Cast", ["fixation_mask"], ["mask"], to=FLOAT),
        node("Mul", ["durations", "mask"], ["masked_durations"]),
        node("ReduceSum", ["masked_durations", "axis_1"], ["time"], keepdims=1),
        node("Unsqueeze", ["mask", "axis_2"], ["mask_3d"]),
        node("Mul", ["boxes", "mask_3d"], ["masked_boxes"]),
        node("ReduceSum", ["masked_boxes", "axis_1"], ["places"], keepdims=0),
        node("Concat", ["pixels", "mean_id", "places", "time"], ["features"], axis=1),
        node("Cast", ["weights"], ["weights_f"], to=FLOAT),
        node("MatMul", ["features", "weights_f"], ["subject_embedding"]),
    ]
    axes = {"axes_23": [2, 3], "axis_1": [1], "axis_2": [2]}
    weights = rng.standard_normal((9, 384)) / np.array([1, 1, 1, 64, 1, 1, 1, 1, 1])[:, None]
    inputs = {
        "pixel_values": (FLOAT, ["B", 3, "H", "W"]),
        "input_ids": (INT, ["B", "L"]),
        "attention_mask": (INT, ["B", "L"]),
        "boxes": (FLOAT, ["B", "M", 4]),
        "durations": (FLOAT, ["B", "M"]),
        "fixation_mask": (INT, ["B", "M"]),
    }
    arrays = {name: np.array(axis) for name, axis in axes.items()} | {"weights": weights.astype(np.float16)}
    return save_graph(path, nodes, inputs, {"subject_embedding": (FLOAT, ["B", 384])}, arrays)


def save_adapter(path: Path, rng: np.random.Generator) -> Path:
    """One linear layer."""
    nodes = [
        helper.make_node("Cast", ["weights"], ["weights_f"], to=FLOAT),
        helper.make_node("MatMul", ["subject_embedding", "weights_f"], ["soft_token"]),
    ]
    weights = (rng.standard_normal((384, HIDDEN)) / 8).astype(np.float16)
    given, made = {"subject_embedding": (FLOAT, ["B", 384])}, {"soft_token": (FLOAT, ["B", HIDDEN])}
    return save_graph(path, nodes, given, made, {"weights": weights})


def save_vlm(folder: Path, rng: np.random.Generator, vocab_size: int) -> Path:
    """Image features are means of pixels; the decoder takes the last embedding from the mean of its past."""
    node = helper.make_node
    folder.mkdir()
    save_graph(
        folder / "vision_encoder.onnx",
        [
            node("Reshape", ["pixel_values", "shape"], ["parts"]),
            node("ReduceMean", ["parts", "axis_2"], ["image_features"], keepdims=0),
        ],
        {"pixel_values": (FLOAT, ["N", 1176]), "image_grid_thw": (INT, ["K", 3])},
        {"image_features": (FLOAT, ["T", HIDDEN])},
        {"shape": np.array([-1, HIDDEN, 4 * 1176 // HIDDEN]), "axis_2": np.array([2])},
    )
    table = rng.standard_normal((vocab_size, HIDDEN)).astype(np.float16)
    np.save(folder / "embed_tokens.npy", table)
    words = np.where(np.arange(vocab_size) >= 256, 12.0, 0.0).astype(np.float32)  # words rather than single bytes
    save_graph(
        folder / "decoder_model_merged.onnx",
        [
            node("Slice", ["inputs_embeds", "zero", "four", "two"], ["key"]),
            node("Slice", ["inputs_embeds", "four", "eight", "two"], ["value"]),
            node("Unsqueeze", ["key", "one"], ["key_4d"]),
            node("Unsqueeze", ["value", "one"], ["value_4d"]),
            node("Concat", ["past_key_values.0.key", "key_4d"], ["present.0.key"], axis=2),
            node("Concat", ["past_key_values.0.value", "value_4d"], ["present.0.value"], axis=2),
            node("ReduceMean", ["present.0.key", "two"], ["keys"], keepdims=0),
            node("ReduceMean", ["present.0.value", "two"], ["values"], keepdims=0),
            node("Concat", ["keys", "values"], ["past"], axis=2),
            node("Slice", ["inputs_embeds", "minus_one", "end", "one"], ["last"]),
            node("Sub", ["past", "last"], ["hidden"]),
            node("Cast", ["table"], ["table_f"], to=FLOAT),
            node("MatMul", ["hidden", "table_f"], ["scores"]),
            node("Add", ["scores", "words"], ["logits"]),
        ],
        {
            "inputs_embeds": (FLOAT, ["B", "S", HIDDEN]),
            "attention_mask": (INT, ["B", "T"]),
            "position_ids": (INT, [3, "B", "S"]),
            "past_key_values.0.key": (FLOAT, ["B", 1, "P", HEAD]),
            "past_key_values.0.value": (FLOAT, ["B", 1, "P", HEAD]),
        },
        {
            "logits": (FLOAT, ["B", 1, vocab_size]),
            "present.0.key": (FLOAT, ["B", 1, "T", HEAD]),
            "present.0.value": (FLOAT, ["B", 1, "T", HEAD]),
        },
        {
            **{name: np.array([n]) for name, n in (("zero", 0), ("one", 1), ("two", 2), ("four", HEAD), ("eight", 8))},
            "minus_one": np.array([-1]),
            "end": np.array([2**31]),
            "words": words,
            "table": np.ascontiguousarray(rng.standard_normal((HIDDEN, vocab_size)).astype(np.float16)),
        },
    )
    return folder


def vlm_config(tokenizer: Tokenizer) -> VLMConfig:
    """What `config.json` says of the VLM."""
    ids = tokenizer.get_vocab()
    return VLMConfig(
        base_model="golden",
        base_revision=None,
        source="vlm",
        source_revision=None,
        precision="fp32",
        hidden_size=HIDDEN,
        num_layers=1,
        num_key_value_heads=1,
        head_dim=HEAD,
        vocab_size=len(ids),
        max_positions=128,
        vision=VisionConfig(
            patch_size=14,
            temporal_patch_size=2,
            merge_size=2,
            image_mean=(0.5, 0.5, 0.5),
            image_std=(0.25, 0.25, 0.25),
            image_size=(SIDE, SIDE),
            min_pixels=SIDE * SIDE,
            max_pixels=SIDE * SIDE,
        ),
        tokens=SpecialTokens(
            subject=ids["<subj>"],
            image=ids["<|image_pad|>"],
            vision_start=ids["<|vision_start|>"],
            vision_end=ids["<|vision_end|>"],
            end=tuple(ids[token] for token in ENDS),
            suppressed=tuple(sorted(ids[token] for token in SPECIAL_TOKENS if token not in ENDS)),
        ),
    )


def save_bundle(target: Path, parts: Path) -> BundleConfig:
    """Assembles the whole model; returns its config."""
    rng = np.random.default_rng(0)
    tokenizer = build_tokenizer([WORDS] * 20, 290)
    tokenizer.save(str(parts / "tokenizer.json"), pretty=False)
    encoder = save_persona_encoder(parts / "persona_encoder.onnx", rng)
    config = BundleConfig(
        name="golden",
        description="The smallest model of format 1.\nIt is never written again.",
        licence="Apache-2.0",
        persona_encoder=PersonaEncoderConfig(
            fingerprint="none yet",
            image_encoder=ImageEncoderInfo("mean colour", "Apache-2.0"),
            image_size=SIDE,
            image_mean=(0.5, 0.5, 0.5),
            image_std=(0.25, 0.25, 0.25),
            max_fixations=4,
            max_description_tokens=16,
            modalities=("text+trajectory", "text", "trajectory"),
        ),
        vlm=vlm_config(tokenizer),
        prompts=Prompts(
            "You describe pictures.",
            {"description": PromptStyle("Describe this in the style of <subj>.", "Describe this.")},
        ),
        training={"people": 0, "nested": {"list": [1, 2.5, None, True, "文"]}},
    )
    config = with_fingerprint(config, persona_encoder=encoder, tokenizer=parts / "tokenizer.json")
    adapter = save_adapter(parts / "adapter.onnx", rng)
    vlm = save_vlm(parts / "vlm", rng, config.vlm.vocab_size)
    assemble(target, config, tokenizer=parts / "tokenizer.json", persona_encoder=encoder, adapter=adapter, vlm=vlm)
    return config


def main() -> None:
    """Writes everything into a folder that does not exist yet."""
    import tempfile

    folder = Path(sys.argv[1])
    folder.mkdir()
    with tempfile.TemporaryDirectory() as parts:
        config = save_bundle(folder / "bundle", Path(parts))
    pixels = np.zeros((SIDE, SIDE, 3), np.uint8)
    pixels[7:21, 7:21] = (220, 30, 20)
    Image.fromarray(pixels).save(folder / "square.png")
    write_samples(folder / "samples.jsonl", samples(folder / "square.png"))
    persona(config.persona_encoder.fingerprint).save(folder / "ana.safetensors")


if __name__ == "__main__":
    main()
