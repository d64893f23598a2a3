"""LoRA layers in the VLM that all people have in common, and one learned soft token a person.

This is how the paper's released code tunes (`init_peft`): LoRA of rank 8 and α = 16 on the query and value projections,
and new embedding rows. Whether the row "prompt tuning" of the paper's tables is this, or soft tokens through the frozen
VLM (`training.baselines.prompt_tuning`), is not certain.

The released code puts one adapter into one VLM for all of its subjects, so the LoRA layers are shared: they learn how
the data set describes, and a person is their embedding row alone. A row is learned as a soft token, in the place of
`<subj>`; unlike a row of the tied embedding table it cannot be generated. Unseen people get soft tokens of their own,
through the LoRA layers as the seen people left them: five samples would change the layers for everybody.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from training.baselines.prompt_tuning import KnownSamples, new_soft_tokens, tune
from training.baselines.system import SoftTokens
from training.baselines.targets import Person, known_digest
from training.config import LoRAConfig, PromptTuningConfig
from training.distributed.device import device_of
from training.distributed.process_group import accelerator_at
from training.errors import TrainingError
from training.loop.train import train
from training.losses.description import language_loss
from training.precision import bfloat16_autocast
from training.vlm.steered_vlm import SteeredVLM

PROJECTIONS = ("q_proj", "v_proj")
"""Of every layer of the language model; the vision encoder has none of these names, and its features stay valid."""


def with_lora(vlm: SteeredVLM, config: LoRAConfig, seed: int) -> tuple[SteeredVLM, nn.ModuleList]:
    """Adds LoRA layers to a VLM, which itself stays as it is.

    Args:
        vlm: The frozen VLM.
        config: Rank and α.
        seed: Of A; B begins as zeros, so that the layers change nothing yet.

    Returns:
        A VLM over the same weights with LoRA layers in it, and these layers: A and B of each, in float32.
    """
    from peft import LoraConfig, inject_adapter_in_model  # it takes seconds, and one baseline needs it
    from peft.tuners.lora import LoraLayer

    adapted = vlm.sharing_weights()
    language = adapted.model.model.language_model
    torch.manual_seed(seed)
    settings = LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,  # type: ignore[arg-type]  # said to be an int, and divided by r
        target_modules=list(PROJECTIONS),
    )
    inject_adapter_in_model(settings, language)
    found = [module for module in language.modules() if isinstance(module, LoraLayer)]
    pairs = [nn.ModuleDict({"A": layer.lora_A["default"], "B": layer.lora_B["default"]}) for layer in found]
    return adapted, nn.ModuleList(pairs).float()


class LoRATask:
    """What the training loop needs to know: L_des of seen people's descriptions, over LoRA layers and soft tokens.

    Args:
        vlm: The VLM with the LoRA layers.
        layers: The LoRA layers.
        style: The prompt's style.
        people: Their known samples are learned from.
        config: Settings of the optimiser and of LoRA.
        seed: Seed of the soft tokens and of batches.
        bf16: Run the VLM under bfloat16 autocast.
        feature_cache: Folder that keeps the VLM's image features for all runs; None keeps them in memory.
    """

    def __init__(
        self,
        vlm: SteeredVLM,
        layers: nn.ModuleList,
        style: str,
        people: Sequence[Person],
        config: PromptTuningConfig,
        seed: int,
        *,
        bf16: bool = False,
        feature_cache: str | None = None,
    ) -> None:
        lora = config.lora
        # The name is part of what a checkpoint has to fit, and so these settings are.
        self.name = (
            f"prompt tuning with LoRA (rank {lora.rank}, α {lora.alpha:g}, learning rate {lora.learning_rate:g})"
        )
        self._vlm, self._prompt, self._bf16 = vlm, vlm.steered_prompt(style), bf16
        self._config, self._seed = config, seed
        self._known = KnownSamples.of(people, vlm, feature_cache)
        self._soft_tokens = new_soft_tokens(vlm, len(people), seed)
        self._layers = layers
        self.state: nn.Module = nn.ModuleDict({"soft_tokens": self._soft_tokens, "lora": layers})
        if lora.checkpointing:
            for layer in vlm.decoder_layers:
                layer.forward = partial(checkpoint, layer.forward, use_reentrant=False, preserve_rng_state=False)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """See `training.loop.train.Task`."""
        return [
            {"params": list(self._soft_tokens.parameters()), "lr": self._config.learning_rate},
            {"params": list(self._layers.parameters()), "lr": self._config.lora.learning_rate},
        ]

    def losses(self, step: int, micro_batch: int) -> dict[str, Tensor]:
        """See `training.loop.train.Task`."""
        number = step * self._config.accumulation + micro_batch
        images, people, texts = self._known.batch(self._config.batch_size, self._seed, number)
        soft_tokens = self._soft_tokens(people.to(device_of(self._soft_tokens)))
        return {"loss": self._description_loss(images, soft_tokens, texts)}

    def _description_loss(self, images: Sequence[int], soft_tokens: Tensor, texts: Sequence[str]) -> Tensor:
        """L_des over whole prompts: what stands before `<subj>` depends on the LoRA layers, so it cannot be cached."""
        vlm, merge = self._vlm, self._vlm.config.vision.merge_size
        maps = self._known.features.of(images)
        grids = np.array([(1, image.shape[0] * merge, image.shape[1] * merge) for image in maps])
        batch = vlm.prompt_batch([self._prompt] * len(texts), texts, grids)
        with bfloat16_autocast(vlm.model.device, wanted=self._bf16):
            embeds = vlm.embed([image.flatten(0, 1) for image in maps], soft_tokens, batch.input_ids)
            return language_loss(vlm.model, embeds, batch)


def tune_with_lora(
    vlm: SteeredVLM,
    style: str,
    people: Sequence[Person],
    config: PromptTuningConfig,
    seed: int,
    folder: Path,
    *,
    bf16: bool = False,
    feature_cache: str | None = None,
) -> SoftTokens:
    """Learns LoRA layers and soft tokens, or goes on where an interrupted run left off.

    Args:
        vlm: The frozen VLM, on the device where it is to run; it stays as it is.
        style: The prompt's style.
        people: Their known samples are learned from: those of seen people in `config.steps`, layers and soft tokens
            together; then those of unseen people in `config.unseen_steps`, soft tokens alone.
        config: Settings of the optimiser and of LoRA.
        seed: Seed of everything that is learned, and of batches.
        folder: Gets checkpoint and log of both, in `seen` and `unseen`.
        bf16: Run the VLM under bfloat16 autocast.
        feature_cache: Folder that keeps the VLM's image features for all runs; None keeps them in memory.

    Returns:
        Everybody's soft tokens in the prompts of the VLM with the LoRA layers.

    Raises:
        TrainingError: Nobody of these people was seen in training, or the folder holds another training, or the loss
            is not finite.
    """
    seen, unseen = ([person for person in people if person.seen == group] for group in (True, False))
    if not seen:
        raise TrainingError(
            "prompt tuning with LoRA: the LoRA layers are learned from people seen in training, and none of these "
            "people is; give some of them samples of the splits 'train' and 'test', or take prompt-tuning, which "
            "learns soft tokens alone"
        )
    adapted, layers = with_lora(vlm, config.lora, seed)
    options: dict[str, Any] = {"bf16": bf16, "feature_cache": feature_cache}
    task = LoRATask(adapted, layers, style, seen, config, seed, **options)
    accelerator = accelerator_at(vlm.model.device)
    train(task, config, seed, folder / "seen", accelerator=accelerator, samples=known_digest(seen))
    adapted.requires_grad_(False)
    soft_tokens = task.state.get_submodule("soft_tokens").state_dict()["weight"]
    if unseen:
        new = attrs.evolve(config, steps=config.unseen_steps)
        soft_tokens = torch.cat([soft_tokens, tune(adapted, style, unseen, new, seed, folder / "unseen", **options)])
    return SoftTokens(adapted, style, [*seen, *unseen], soft_tokens)
