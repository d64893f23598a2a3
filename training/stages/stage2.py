"""Stage 2: steering the frozen VLM. L = L_des + λ·L_con + L_cls over the extractor, its subject head and the adapter.

z_s comes from one sample of a person; the description to be produced is that of *another* sample of the same person, so
nothing about the picture can leak through the soft token.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import attrs
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.config import METEOR, Stage2Config
from training.data.batches import Batch, Draw, Stage2Batches
from training.data.encoded import EncodedDataset, NetworkInputs
from training.data.feature_cache import open_store
from training.data.image_features import ImageFeatures
from training.data.loader import BatchLoader
from training.distributed.collectives import all_gather_objects
from training.distributed.device import device_of
from training.distributed.means import Mean, all_reduce_means, rescale_to_step
from training.distributed.process_group import SINGLE_PROCESS, ProcessGroup
from training.distributed.sharding import join_uneven_inputs
from training.errors import TrainingError
from training.losses.contrastive import ContrastiveLoss
from training.losses.description import DescriptionLoss
from training.network.adapter import Adapter
from training.network.deper import Deper
from training.network.text_table import TextTable
from training.precision import bfloat16_autocast
from training.seeding import step_generator
from training.stages.checkpoint_selection import caption_figures
from training.stages.embedding import to_device
from training.vlm.generation import Prompt, SeenImage, greedy, image_ids
from training.vlm.steered_vlm import SteeredVLM

_IMAGES_AT_A_TIME = 16  # the vision tower's activations of one 448×448 image are tens of MB


MEANS = ("description", "contrast", "subject", "accuracy")
T = TypeVar("T", Tensor, float)

_PERSONA_SAMPLES = 100  # of a seen subject (paper)


class Stage2Task:
    """What the training loop needs to know of stage 2.

    Args:
        deper: DEPER after stage 1; its dual-context encoder is frozen here.
        config: Settings of the stage.
        data: The training samples; those without a description serve as sources of z_s alone. Behind them those for
            validation, of the same people.
        text_table: The VLM's frozen input-embedding table.
        vlm: The frozen VLM.
        seed: Seed of the adapter's weights and of batches.
        feature_cache: Folder that keeps the VLM's image features for all runs; None keeps them in memory.
        group: The ranks that a step is split over, and which is this process's.
        held_out: How many samples at the end of `data` are for validation alone.
    """

    name = "stage 2"

    def __init__(
        self,
        deper: Deper,
        config: Stage2Config,
        data: EncodedDataset,
        text_table: TextTable,
        vlm: SteeredVLM,
        seed: int,
        feature_cache: str | Path | None = None,
        *,
        group: ProcessGroup = SINGLE_PROCESS,
        held_out: int = 0,
    ) -> None:
        torch.manual_seed(seed)
        self.config, self.data, self.text_table, self.vlm, self.seed = config, data, text_table, vlm, seed
        self.encoder, self.head = deper.persona_encoder.freeze_context(), deper.subject_head
        size = deper.persona_encoder.config.subject_embedding_size
        self.adapter = Adapter(size, vlm.config.hidden_size)
        self.contrastive = ContrastiveLoss(len(data.subjects), size, config.bank_size, config.temperature)
        self.state = nn.ModuleDict(
            {"encoder": self.encoder, "head": self.head, "adapter": self.adapter, "contrastive": self.contrastive}
        )
        if data.shard_of is not None:
            raise TrainingError(
                "feature_cache: stage 2 on shards needs one: its targets lie in any shard at any time; name a folder"
            )
        store = open_store(feature_cache, vlm.model.model.visual, attrs.asdict(vlm.config.vision))
        self.features = ImageFeatures(data.images, vlm.image_maps, store, _IMAGES_AT_A_TIME)
        self.features.fill(name="VLM image features")
        self.description_loss = DescriptionLoss(
            vlm,
            self.features.of,
            config.style,
            bf16=config.bf16,
            cache_bytes=int(config.prefix_cache_gib * 2**30),
            checkpointing=config.checkpointing,
            compile=config.compile,
        )
        self.group, self.count = group, len(data) - held_out
        described = np.array([text is not None for text in data.descriptions])
        is_training = np.arange(len(data)) < self.count
        self._validation_targets = _rows_by_subject(data, described & ~is_training)
        self.batches = Stage2Batches(
            data=data,
            config=config,
            seed=seed,
            group=group,
            count=self.count,
            described=_targets_by_subject(data, described & is_training),
            tokens=[0 if text is None else len(vlm.text_ids(text)) + 1 for text in data.descriptions],
        )
        self.loader = BatchLoader(self.batches, config)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """See `training.loop.train.Task`."""
        trained = [*self.encoder.extractor.parameters(), *self.head.parameters()]
        return [
            {"params": trained, "lr": self.config.learning_rate},
            {"params": list(self.adapter.parameters()), "lr": self.config.adapter_learning_rate},
        ]

    def losses(self, step: int, micro_batch: int) -> dict[str, Tensor]:
        """See `training.loop.train.Task`."""
        self.state.train()
        count = self.config.accumulation
        batch = self.loader.take(step * count + micro_batch, device_of(self.adapter))
        return self._weigh(rescale_to_step(self._means(batch), batch.totals, count * self.group.world_size))

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        """Losses, subject accuracy and caption metrics on the samples for validation; nothing is withheld from them.

        The losses are over the samples of all who have described something there. `caption_samples` of the descriptions
        are also produced, each in the style of the persona of its subject's training samples, and scored.
        """
        self.state.eval()
        sources = [
            row
            for row in range(self.count, len(self.data))
            if len(self._validation_targets[int(self.data.subject_of[row])])
        ]
        with join_uneven_inputs(self.vlm.decoder_layers):
            passes = [self._validation_means(rows) for rows in self.group.batches_of(sources, self.config.batch_size)]
        return self._weigh(all_reduce_means(passes, MEANS, device_of(self.adapter))) | self._caption_figures()

    def rows(self, step: int) -> list[int]:
        """The samples of a step, sources and targets, those of all its micro-batches and ranks."""
        return [int(row) for draw in self.batches.draws(step) for row in (*draw.rows, *draw.targets)]

    def _means(self, batch: Batch) -> dict[str, Mean]:
        device = device_of(self.adapter)
        subject_embedding = self._subject_embedding(batch.inputs)
        rows, subjects = (torch.from_numpy(own).to(device) for own in (batch.rows, self.data.subject_of[batch.rows]))
        logits = self.head(subject_embedding)
        texts = [str(self.data.descriptions[target]) for target in batch.targets]
        soft_tokens = self.adapter(subject_embedding)
        values = {
            "contrast": self.contrastive(subject_embedding, subjects, rows),
            "subject": F.cross_entropy(logits, subjects),
            "accuracy": (logits.argmax(-1) == subjects).float().mean(),
            "description": self.description_loss(self.data.image_of[batch.targets], soft_tokens, texts),
        }
        return {name: Mean(value, batch.counts[name]) for name, value in values.items()}

    def _weigh(self, means: Mapping[str, T]) -> dict[str, T]:
        config = self.config
        return {
            "loss": means["description"]
            + config.contrastive_weight * means["contrast"]
            + config.subject_weight * means["subject"],
            **{name: means[name] for name in MEANS},
        }

    def _subject_embedding(self, inputs: NetworkInputs) -> Tensor:
        with torch.no_grad():
            context = self.encoder.encode(*to_device(inputs, self.text_table, device_of(self.adapter)))
        return self.encoder.extract(context)

    def _validation_means(self, rows: np.ndarray) -> dict[str, Mean]:
        targets = [
            self.batches.target(int(row), step_generator(self.seed, int(row), 3), self._validation_targets)
            for row in rows
        ]
        return self._means(self.batches.collate(Draw(rows, [None] * len(rows), np.array(targets))))

    def _caption_figures(self) -> dict[str, float]:
        described = np.sort(np.concatenate(self._validation_targets))
        count = min(self.config.caption_samples, len(described))
        if count == 0:
            return {}
        chosen = described[np.linspace(0, len(described) - 1, count).round().astype(int)]
        own = chosen[self.group.rank :: self.group.world_size]
        references = [str(self.data.descriptions[row]) for row in own]
        pairs = all_gather_objects(list(zip(self._describe(own), references, strict=True)))
        candidates, references = ([pair[i] for pair in pairs] for i in (0, 1))
        corpus = [text for text in self.data.descriptions if text is not None]
        meteor = METEOR in self.config.selection
        # Rank 0 scores for all: METEOR's program takes 2 GB.
        scored = [] if self.group.rank else [caption_figures(candidates, references, corpus, with_meteor=meteor)]
        figures: dict[str, float] = all_gather_objects(scored)[0]
        return figures

    def _describe(self, rows: np.ndarray) -> list[str]:
        """Samples' images in the style of their subjects, greedily."""
        prompts = [self._prompt(int(row)) for row in rows]
        with (
            bfloat16_autocast(self.vlm.model.device, wanted=self.config.bf16),
            join_uneven_inputs(self.vlm.decoder_layers),
        ):
            described = greedy(self.vlm, prompts, self.config.caption_tokens)
        return [str(self.vlm.tokenizer.decode(ids)) for ids in described]

    def _prompt(self, row: int) -> Prompt:
        """The prompt for a sample's image in the style of its subject: the mean z_s of up to 100 training samples."""
        own = np.flatnonzero(self.data.subject_of[: self.count] == self.data.subject_of[row])[:_PERSONA_SAMPLES]
        persona = self._subject_embedding(self.data.inputs(own)).mean(0, keepdim=True)
        image, merge = self.features[int(self.data.image_of[row])], self.vlm.config.vision.merge_size
        grid = np.array([1, image.shape[0] * merge, image.shape[1] * merge])
        seen = SeenImage(image.flatten(0, 1), grid)
        ids = [*image_ids(self.vlm, seen), *self.vlm.steered_prompt(self.config.style)]
        return Prompt(ids, [seen], self.adapter(persona)[0])


def _rows_by_subject(data: EncodedDataset, chosen: np.ndarray) -> list[np.ndarray]:
    return [np.flatnonzero(chosen & (data.subject_of == subject)) for subject in range(len(data.subjects))]


def _targets_by_subject(data: EncodedDataset, chosen: np.ndarray) -> list[np.ndarray]:
    targets = _rows_by_subject(data, chosen)
    if silent := [data.subjects[i] for i, rows in enumerate(targets) if len(rows) == 0]:
        raise TrainingError(f"stage 2 needs a description of everybody; without one: {', '.join(silent[:5])}")
    return targets
