"""One learned soft token a person, through the frozen VLM: no encoder, no gaze, and training for everybody new."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs
import torch
from torch import Tensor, nn

from training.baselines.targets import Person, descriptions, known_digest
from training.config import OptimisationConfig
from training.data.feature_cache import open_store
from training.data.image_features import ImageFeatures
from training.data.images import SampleImages, distinct_images
from training.data.sampling import batch_rows
from training.distributed.device import device_of
from training.distributed.process_group import accelerator_at
from training.loop.train import train
from training.losses.description import DescriptionLoss
from training.vlm.steered_vlm import SteeredVLM


@attrs.frozen(eq=False)
class KnownSamples:
    """The samples that people are known from, in batches.

    Attributes:
        person_of: (n,) the number of the person whose each sample is.
        image_of: n numbers of images.
        texts: n descriptions.
        features: The VLM's image features by the images' numbers.
    """

    person_of: Tensor
    image_of: Sequence[int]
    texts: Sequence[str]
    features: ImageFeatures

    @classmethod
    def of(cls, people: Sequence[Person], vlm: SteeredVLM, feature_cache: str | None = None) -> "KnownSamples":
        """Those of these people.

        Args:
            people: Each is numbered by their place.
            vlm: Makes the features.
            feature_cache: Folder that keeps the VLM's image features for all runs; None keeps them in memory.
        """
        samples = [sample for person in people for sample in person.known]
        image_of, images = distinct_images(samples)
        store = open_store(feature_cache, vlm.model.model.visual, attrs.asdict(vlm.config.vision))
        return cls(
            person_of=torch.tensor([number for number, person in enumerate(people) for _ in person.known]),
            image_of=image_of,
            texts=descriptions(samples),
            features=ImageFeatures(SampleImages(images), vlm.image_maps, store),
        )

    def batch(self, batch_size: int, seed: int, number: int) -> tuple[list[int], Tensor, list[str]]:
        """Images, people and texts of the batch with this running number."""
        rows = batch_rows(len(self.texts), batch_size, seed, number)
        return [self.image_of[row] for row in rows], self.person_of[rows], [self.texts[row] for row in rows]


def new_soft_tokens(vlm: SteeredVLM, count: int, seed: int) -> nn.Embedding:
    """Random rows of the size that the VLM's own embeddings have: (count, hidden) float32."""
    words = vlm.model.get_input_embeddings().weight
    torch.manual_seed(seed)
    rows = torch.randn(count, words.shape[1]) * float(words.float().std())
    table: nn.Embedding = nn.Embedding.from_pretrained(rows, freeze=False)
    return table


class PromptTuningTask:
    """What the training loop needs to know: L_des of people's own descriptions, over their soft tokens.

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
        self._known = KnownSamples.of(people, vlm, feature_cache)
        self._description_loss = DescriptionLoss(vlm, self._known.features.of, style, bf16=bf16)
        self.state: nn.Module = new_soft_tokens(vlm, len(people), seed)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """See `training.loop.train.Task`."""
        return [{"params": list(self.state.parameters()), "lr": self._config.learning_rate}]

    def losses(self, step: int, micro_batch: int) -> dict[str, Tensor]:
        """See `training.loop.train.Task`."""
        number = step * self._config.accumulation + micro_batch
        images, people, texts = self._known.batch(self._config.batch_size, self._seed, number)
        soft_tokens = self.state(people.to(device_of(self.state)))
        return {"loss": self._description_loss(images, soft_tokens, texts)}


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
    accelerator = accelerator_at(vlm.model.device)
    train(task, config, seed, folder, accelerator=accelerator, samples=known_digest(people))
    soft_tokens: Tensor = task.state.state_dict()["weight"]
    return soft_tokens
