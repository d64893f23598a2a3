"""A trained model, still in torch, to a bundle."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs

from export.adapter import export_adapter
from export.bundle.assemble import assemble, with_fingerprint
from export.graphs.trace import Precision
from export.persona_encoder import export_persona_encoder
from export.qwen2_vl.export import VLMExport, export_vlm
from pydeper.bundle.config import BundleConfig, PersonaEncoderConfig, Prompts
from training.network.adapter import Adapter
from training.network.image_encoder import ImageEncoder
from training.network.persona_encoder import PersonaEncoder
from training.network.text_table import TextTable
from training.vlm.steered_vlm import SteeredVLM


@attrs.frozen
class Parity:
    """Largest differences between the exported files and torch, each relative to the largest value compared."""

    subject_embedding: float
    soft_token: float
    vlm: VLMExport

    def figures(self) -> dict[str, float]:
        """What was compared, by name."""
        return {
            "subject embedding": self.subject_embedding,
            "soft token": self.soft_token,
            "image features": self.vlm.vision_error,
            "logits, prompt": self.vlm.prefill_error,
            "logits, steps": self.vlm.step_error,
        }


def export_trained(
    target: Path,
    *,
    name: str,
    description: str,
    licence: str,
    vlm: SteeredVLM,
    prompts: Prompts,
    persona: PersonaEncoderConfig,
    image_encoder: ImageEncoder,
    text_table: TextTable,
    persona_encoder: PersonaEncoder,
    adapter: Adapter,
    facts: Mapping[str, Any],
    precision: Precision = "fp16",
    extras: Mapping[str, Path] | None = None,
    licence_file: Path | None = None,
) -> Parity:
    """Exports all parts, checks each against torch, and assembles the bundle at `target`, in place of what is there.

    Args:
        target: The bundle's folder.
        name: The model's name.
        description: What it is, for the model card.
        licence: Of the bundle as a whole.
        vlm: The frozen VLM.
        prompts: System turn and styles.
        persona: Sizes and preprocessing of the persona encoder; its fingerprint is computed here.
        image_encoder: Frozen.
        text_table: Frozen.
        persona_encoder: Trained.
        adapter: Trained.
        facts: What the model card tells of the training.
        precision: How weights are stored; computation is float32 either way.
        extras: Further files and folders, by their name in the bundle.
        licence_file: The licence's text, carried along.

    Raises:
        ParityError: An exported graph gives other numbers than torch.
        ValueError: The VLM's export differs from transformers, or parts do not fit.
    """
    with tempfile.TemporaryDirectory(prefix="pydeper-export-") as temporary:
        work = Path(temporary)
        encoder_file, adapter_file, tokenizer_file = (
            work / file for file in ("persona_encoder.onnx", "adapter.onnx", "tokenizer.json")
        )
        embedding_differences = export_persona_encoder(
            encoder_file, persona_encoder, image_encoder, text_table, image_size=persona.image_size, precision=precision
        )
        token_differences = export_adapter(adapter_file, adapter, precision=precision)
        vlm_report = export_vlm(vlm.model, work / vlm.config.source, store_fp16=precision == "fp16")
        tokenizer_file.write_text(vlm.tokenizer.to_str(), encoding="utf-8")
        config = BundleConfig(
            name=name,
            description=description,
            licence=licence,
            persona_encoder=persona,
            vlm=vlm.config,
            prompts=prompts,
            training=dict(facts),
        )
        config = with_fingerprint(config, persona_encoder=encoder_file, tokenizer=tokenizer_file)
        assemble(
            target,
            config,
            tokenizer=tokenizer_file,
            persona_encoder=encoder_file,
            adapter=adapter_file,
            vlm=work / vlm.config.source,
            licence=licence_file,
            extras=extras,
            overwrite=True,
        )
    return Parity(max(embedding_differences.values()), max(token_differences.values()), vlm_report)
