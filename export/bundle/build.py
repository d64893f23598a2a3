"""DEPER's trained modules to a bundle: both graphs exported, checked against torch, and assembled with a VLM."""

import tempfile
from collections.abc import Mapping
from pathlib import Path

import attrs

from export.adapter import export_adapter
from export.bundle.assemble import assemble, with_fingerprint
from export.graphs.trace import Precision
from export.persona_encoder import EncoderPrecision, export_persona_encoder
from pydeper.bundle.config import BundleConfig
from training.network import Adapter, ImageEncoder, PersonaEncoder, TextTable


@attrs.frozen(eq=False)
class TrainedModules:
    """What DEPER's graphs are made of.

    Attributes:
        persona_encoder: Trained.
        image_encoder: The frozen image encoder that it was trained with.
        text_table: The frozen text table that it was trained with.
        adapter: Trained.
    """

    persona_encoder: PersonaEncoder
    image_encoder: ImageEncoder
    text_table: TextTable
    adapter: Adapter


@attrs.frozen
class Differences:
    """Largest differences between the exported files and torch, each relative to the largest value compared."""

    subject_embedding: float
    soft_token: float


def build_bundle(
    target: Path,
    config: BundleConfig,
    modules: TrainedModules,
    *,
    vlm: Path,
    tokenizer: Path,
    encoder_precision: EncoderPrecision,
    adapter_precision: Precision,
    extras: Mapping[str, Path] | None = None,
    overwrite: bool = False,
) -> Differences:
    """Exports DEPER's graphs, checks each against torch, and assembles the bundle at `target`.

    Args:
        target: The bundle's folder.
        config: What `config.json` will say; the fingerprint of the persona encoder is computed here.
        modules: What is exported; not changed.
        vlm: The folder with the exported VLM's files.
        tokenizer: The VLM's `tokenizer.json`, with `<subj>` as a special token.
        encoder_precision: How the persona encoder is stored.
        adapter_precision: How the adapter is stored.
        extras: Further files and folders, by the name they will have in the bundle.
        overwrite: Replace the bundle that is at `target`; otherwise it must not exist.

    Raises:
        ParityError: An exported graph gives other numbers than torch.
        ValueError: The modules do not fit each other, or rounding would change a weight too much.
        BundleError: See `assemble`.
    """
    with tempfile.TemporaryDirectory(prefix="pydeper-export-") as temporary:
        encoder_file, adapter_file = Path(temporary) / "persona_encoder.onnx", Path(temporary) / "adapter.onnx"
        encoder_differences = export_persona_encoder(
            encoder_file,
            modules.persona_encoder,
            modules.image_encoder,
            modules.text_table,
            image_size=config.persona_encoder.image_size,
            precision=encoder_precision,
        )
        adapter_differences = export_adapter(adapter_file, modules.adapter, precision=adapter_precision)
        assemble(
            target,
            with_fingerprint(config, persona_encoder=encoder_file, tokenizer=tokenizer),
            tokenizer=tokenizer,
            persona_encoder=encoder_file,
            adapter=adapter_file,
            vlm=vlm,
            extras=extras,
            overwrite=overwrite,
        )
    return Differences(max(encoder_differences.values()), max(adapter_differences.values()))
