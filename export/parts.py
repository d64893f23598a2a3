"""The built-in model's frozen parts, from its bundle back to PyTorch: small, trained, and there without a download."""

import json
import tempfile
from pathlib import Path

import attrs
import numpy as np
import torch
from google.protobuf.message import DecodeError
from torch import Tensor, nn
from transformers import DINOv3ConvNextModel, Qwen2VLForConditionalGeneration

from export.persona_encoder import export_persona_encoder
from export.qwen2_vl.export import export_vlm
from export.restore import arrays, restore
from pydeper.bundle.layout import CONFIG, PERSONA_ENCODER, TOKENIZER
from pydeper.bundle.vlm_files import DECODER, EMBEDDING_TABLE, VISION_ENCODER
from pydeper.errors import BundleError
from training.loop.checkpoints import save_finished
from training.network.image_encoder import ImageEncoder
from training.network.persona_encoder import PersonaEncoder
from training.network.text_table import TextTable
from training.outputs import exists, output_folder
from training.tiny import make, steps
from training.tiny.config import TinyConfig
from training.tiny.vlm import build_vlm, tokenizer_of
from training.vlm.steered_vlm import SteeredVLM

VLM, IMAGE_ENCODER = "vlm", "image-encoder"


def export_parts(config: TinyConfig, bundle: Path, out: Path) -> None:
    """Writes the frozen parts of the built-in model, each twice.

    In the layout of transformers, as `vlm` and `image_encoder` of a training's configuration name them: OUT/vlm and
    OUT/image-encoder. And as the finished pre-trainings of `python -m training tiny`, so that with `--out OUT` that
    command, and `table`, `recipe` and `curve`, train on from them.

    Args:
        config: The settings that the bundle was made with.
        bundle: The built-in bundle, its weights stored in half precision.
        out: The folder; it must not exist.

    Raises:
        BundleError: The folder exists, or the bundle is none of these settings.
    """
    if exists(out):
        raise BundleError(f"{out}: exists already; remove it, or choose another --out")
    vlm = build_vlm(config)
    encoder = make.build_image_encoder(config)
    try:
        restore(vlm.model, _vlm_arrays(bundle / "vlm"), lambda: _exported_vlm(vlm.model), _folded(vlm.model))
        restore(encoder, arrays(bundle / PERSONA_ENCODER), lambda: _exported_encoder(config, encoder))
    except (OSError, ValueError, DecodeError) as error:
        raise BundleError(f"{bundle}: its weights cannot be read back ({error})") from error
    origin = json.loads((bundle / CONFIG).read_text("utf-8"))["persona_encoder"]["fingerprint"]
    with (
        output_folder(out.absolute().parent) as parent,
        tempfile.TemporaryDirectory(prefix="pydeper-parts-", dir=parent) as temporary,
    ):
        folder = Path(temporary) / "parts"
        _save_vlm(vlm, folder / VLM)
        _save_image_encoder(encoder, folder / IMAGE_ENCODER)
        tower = nn.ModuleDict({"encoder": vlm.model.model.visual})
        language = nn.ModuleDict({"language": vlm.model.model.language_model})
        for step, state, pretraining in (
            (steps.VISION, tower, config.vision),
            (steps.LANGUAGE, language, config.language),
            (steps.LARGER_VISION, tower, config.larger_vision),
            (steps.SKETCHES, tower, config.sketches),
            (steps.LARGER_LANGUAGE, language, config.larger_language),
            (steps.IMAGE_ENCODER, nn.ModuleDict({"encoder": encoder}), config.encoder),
        ):
            save_finished(folder / step, state, pretraining.steps, origin)
        folder.rename(out)


def _vlm_arrays(folder: Path) -> dict[str, np.ndarray]:
    files = (f"{VISION_ENCODER}.onnx", f"{DECODER}.onnx", EMBEDDING_TABLE)
    return {name: array for file in files for name, array in arrays(folder / file).items()}


def _exported_vlm(model: Qwen2VLForConditionalGeneration) -> dict[str, np.ndarray]:
    with tempfile.TemporaryDirectory(prefix="pydeper-parts-") as temporary:
        export_vlm(model, Path(temporary) / VLM, store_fp16=True)
        return _vlm_arrays(Path(temporary) / VLM)


def _folded(model: Qwen2VLForConditionalGeneration) -> list[Tensor]:
    """The biases of values: since attention's weights sum to 1, the exporter adds them to the projection's bias."""
    return [block.attn.qkv.bias.chunk(3)[2] for block in model.model.visual.blocks]


def _exported_encoder(config: TinyConfig, encoder: DINOv3ConvNextModel) -> dict[str, np.ndarray]:
    rest = PersonaEncoder(config.network).eval()
    table = TextTable(torch.zeros(tokenizer_of(config).get_vocab_size(), config.network.text_channels))
    with tempfile.TemporaryDirectory(prefix="pydeper-parts-") as temporary:
        path = Path(temporary) / PERSONA_ENCODER
        size = config.image_encoder.image_size
        export_persona_encoder(path, rest, ImageEncoder(encoder), table, image_size=size, precision="fp16")
        return arrays(path)


def _save_vlm(vlm: SteeredVLM, folder: Path) -> None:
    vlm.model.save_pretrained(folder)
    vlm.tokenizer.save(str(folder / TOKENIZER))
    _write_preprocessor(folder, attrs.asdict(vlm.config.vision))


def _save_image_encoder(encoder: DINOv3ConvNextModel, folder: Path) -> None:
    encoder.save_pretrained(folder)
    _write_preprocessor(folder, {"image_mean": make.IMAGE_MEAN, "image_std": make.IMAGE_STD})


def _write_preprocessor(folder: Path, content: dict[str, object]) -> None:
    (folder / "preprocessor_config.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
