"""One learned soft token a person, through the frozen VLM: no encoder, no gaze, and training for everybody new."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs
import torch
from torch import Tensor, nn

from training.baselines.targets import Person, descriptions
from training.config import OptimisationConfig
from training.data.feature_cache import open_store
from training.data.image_features import ImageFeatures
from training.data.images import SampleImages, distinct_images
from training.data.sampling import batch_rows
from training.distributed.device import device_of
from training.distributed.process_group import open_accelerator
from training.loop.train import train
from training.losses.description import DescriptionLoss
from training.vlm.steered_vlm import SteeredVLM


class PromptTuningTask:
    """What the training loop needs to know: L_des of people's own descriptions, over their soft tokens.

    Soft tokens begin as random rows of the size that the VLM's own embeddings have.

    Args:
        vlm: The frozen VLM.
        style: The prompt's style.
        people: Their known samples are learned from.
        config: Settings of the optimiser.
        seed: Seed of the soft tokens and of batches.
        bf16: Run the VLM under bfloat16 autocast.
        feature_cache: Folder that keeps the VLM's image features for all runs; None keeps them in memory.
    """

    name = "prompt tuning"

    def __init__(
        self,
        vlm: SteeredVLM,
        style: str,
        people: Sequence[Person],
        config: OptimisationConfig,
        seed: int,
        *,
        bf16: bool = False,
        feature_cache: str | None = None,
    ) -> None:
        self._config, self._seed = config, seed
        samples = [sample for person in people for sample in person.known]
        self._person_of = torch.tensor([number for number, person in enumerate(people) for _ in person.known])
        self._texts = descriptions(samples)
        self._image_of, images = distinct_images(samples)
        store = open_store(feature_cache, vlm.model.model.visual, attrs.asdict(vlm.config.vision))
        features = ImageFeatures(SampleImages(images), vlm.image_maps, store)
        self._description_loss = DescriptionLoss(vlm, features.of, style, bf16=bf16)
        table = vlm.model.get_input_embeddings().weight
        torch.manual_seed(seed)
        soft_tokens = torch.randn(len(people), table.shape[1]) * float(table.float().std())
        self.state: nn.Module = nn.Embedding(*soft_tokens.shape)
        self.state.load_state_dict({"weight": soft_tokens})

    def parameter_groups(self) -> list[dict[str, Any]]:
        """See `training.loop.train.Task`."""
        return [{"params": list(self.state.parameters()), "lr": self._config.learning_rate}]

    def losses(self, step: int, micro_batch: int) -> dict[str, Tensor]:
        """See `training.loop.train.Task`."""
        number = step * self._config.accumulation + micro_batch
        rows = batch_rows(len(self._texts), self._config.batch_size, self._seed, number)
        soft_tokens = self.state(self._person_of[rows].to(device_of(self.state)))
        return {
            "loss": self._description_loss(
                [self._image_of[row] for row in rows], soft_tokens, [self._texts[row] for row in rows]
            )
        }


def tune(
    vlm: SteeredVLM,
    style: str,
    people: Sequence[Person],
    config: OptimisationConfig,
    seed: int,
    folder: Path,
    *,
    bf16: bool = False,
    feature_cache: str | None = None,
) -> Tensor:
    """Learns the soft tokens, or goes on where an interrupted run left off.

    Args:
        vlm: The frozen VLM, on the device where it is to run.
        style: The prompt's style.
        people: Their known samples are learned from.
        config: Settings of the optimiser.
        seed: Seed of the soft tokens and of batches.
        folder: Gets checkpoint and log.
        bf16: Run the VLM under bfloat16 autocast.
        feature_cache: Folder that keeps the VLM's image features for all runs; None keeps them in memory.

    Returns:
        (people, hidden).

    Raises:
        TrainingError: The folder holds another training, or the loss is not finite.
    """
    task = PromptTuningTask(vlm, style, people, config, seed, bf16=bf16, feature_cache=feature_cache)
    train(task, config, seed, folder, accelerator=open_accelerator(cpu=vlm.model.device.type == "cpu"))
    soft_tokens: Tensor = task.state.state_dict()["weight"]
    return soft_tokens
