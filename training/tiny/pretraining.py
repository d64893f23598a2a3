"""Pre-training of the tiny frozen parts on drawn scenes: the VLM's vision tower, its language side, the image encoder.

The VLM is given what a real Qwen2-VL brings along: it knows what is in a picture, it can describe it in any manner that
words ask for, and it takes an embedding in a prompt for what it means. For the last, most prompts hold, in the slot of
`<subj>`, one soft token that is the sum of the embeddings of the words for the viewer's traits.
"""

from collections.abc import Sequence
from typing import Any

import attrs
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import DINOv3ConvNextModel, Qwen2VLForConditionalGeneration

from training.losses.description import language_loss
from training.seeding import step_generator
from training.tiny.scenes import COLOURS, GRID, SHAPES, SIZES, Scene, sample_scene
from training.tiny.viewers import COUNTS, ORDERS, Viewer, sample_viewer
from training.vlm.steered_vlm import SteeredVLM

MAX_OBJECTS = 5
STYLE = "description"


def draw_scenes(count: int, seed: int) -> list[Scene]:
    """`count` random scenes, each from a seed of its own, so that a longer list begins with the shorter one."""
    return [sample_scene(step_generator(seed, index)) for index in range(count)]


# --- what is where: dense targets

# Each target has a class 0 for "nothing here". The places in the scanning orders teach the tower to relate objects
# ("this is the second from the right"): the image precedes the text of the prompt, so its tokens cannot depend on it.
_TARGETS: dict[str, int] = {
    "shape": len(SHAPES) + 1,
    "colour": len(COLOURS) + 1,
    "size": len(SIZES) + 1,
} | dict.fromkeys(ORDERS, MAX_OBJECTS + 1)


def dense_targets(scene: Scene, side: int, names: Sequence[str]) -> np.ndarray:
    """Class of every point of a side×side grid over the scene: (len(names), side·side) int64, 0 where nothing is."""
    points = (np.arange(side) + 0.5) / side
    targets = np.zeros((len(names), side, side), np.int64)
    ranks = {order: sorted(scene.objects, key=key) for order, key in ORDERS.items()}
    for thing in scene.objects:
        if side == GRID:
            rows, columns = np.arange(side) == thing.cell[0], np.arange(side) == thing.cell[1]
        else:
            x1, y1, x2, y2 = thing.box
            rows, columns = (y1 < points) & (points < y2), (x1 < points) & (points < x2)
        classes = {
            "shape": SHAPES.index(thing.shape),
            "colour": list(COLOURS).index(thing.colour),
            "size": list(SIZES).index(thing.size),
        } | {order: ranked.index(thing) for order, ranked in ranks.items()}
        for target, name in zip(targets, names, strict=True):
            target[np.ix_(rows, columns)] = classes[name] + 1
    return targets.reshape(len(names), side * side)


class DenseHeads(nn.Module):
    """Throw-away linear heads that tell, for every token, what is there."""

    def __init__(self, channels: int, names: Sequence[str]) -> None:
        super().__init__()
        self.names = tuple(names)
        self.heads = nn.ModuleDict({name: nn.Linear(channels, _TARGETS[name]) for name in names})

    def losses(self, tokens: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """Cross-entropies, and the fraction of tokens with every class right.

        Args:
            tokens: (B, N, C).
            targets: (B, len(names), N) int64.
        """
        losses, right = [], torch.ones_like(targets[:, 0], dtype=torch.bool)
        for index, name in enumerate(self.names):
            logits = self.heads[name](tokens).float()
            losses.append(F.cross_entropy(logits.flatten(0, 1), targets[:, index].flatten()))
            right &= logits.argmax(-1) == targets[:, index]
        return {"loss": torch.stack(losses).sum(), "right": right.float().mean()}


@attrs.define(eq=False)
class VisionTask:
    """Trains a vision tower or image encoder under dense heads.

    Attributes:
        name: Name of the run.
        encoder: The module that is trained.
        features: Maps (encoder, pixels of a batch) to (B, N, C) tokens.
        heads: The dense heads.
        pixels: (scenes, ...) preprocessed images.
        targets: (scenes, targets, N) int64.
        batch_size: Scenes in a step.
        learning_rate: Peak rate.
        seed: Seed of the batches.
    """

    name: str
    encoder: nn.Module
    features: Any
    heads: DenseHeads
    pixels: Tensor
    targets: Tensor
    batch_size: int
    learning_rate: float
    seed: int
    state: nn.Module = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.state = nn.ModuleDict({"encoder": self.encoder, "heads": self.heads})

    def parameter_groups(self) -> list[dict[str, Any]]:
        """See `training.loop.train.Task`."""
        return [{"params": list(self.state.parameters()), "lr": self.learning_rate}]

    def losses(self, step: int, micro_batch: int) -> dict[str, Tensor]:
        """See `training.loop.train.Task`."""
        rows = step_generator(self.seed, step, micro_batch).choice(len(self.pixels), self.batch_size, replace=False)
        with torch.autocast("cpu", torch.bfloat16):
            tokens = self.features(self.encoder, self.pixels[rows].float())
            return self.heads.losses(tokens, self.targets[rows])


def tower_tokens(tower: nn.Module, patches: Tensor) -> Tensor:
    """Merged tokens (B, 9, hidden) of the Qwen2-VL vision tower for patches (B, 36, 1176)."""
    side = int(patches.shape[1] ** 0.5)
    grid = torch.tensor([[1, side, side]]).expand(len(patches), 3)
    return tower(patches.flatten(0, 1), grid_thw=grid).pooler_output.unflatten(0, (len(patches), -1))


def encoder_tokens(encoder: DINOv3ConvNextModel, pixels: Tensor) -> Tensor:
    """Tokens (B, G·G, C) of the image encoder's last map, without the pooled token."""
    return encoder(pixels).last_hidden_state[:, 1:]


# --- the language side


@attrs.define(eq=False)
class LanguageTask:
    """Trains the language side on (scene, random viewer) pairs with the vision tower frozen.

    Attributes:
        vlm: The VLM; its language model is trained.
        scenes: The scenes.
        image_features: (scenes, 9, hidden), computed once.
        batch_size: Pairs in a step.
        learning_rate: Peak rate.
        seed: Seed of pairs and prompts.
        patches: Patch rows and columns of every image.
    """

    vlm: SteeredVLM
    scenes: Sequence[Scene]
    image_features: Tensor
    batch_size: int
    learning_rate: float
    seed: int
    patches: tuple[int, int] = (6, 6)
    name: str = "language"
    state: nn.Module = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        language = self.vlm.model.model.language_model
        language.requires_grad_(True)
        self.state = language

    def parameter_groups(self) -> list[dict[str, Any]]:
        """See `training.loop.train.Task`."""
        return [{"params": list(self.state.parameters()), "lr": self.learning_rate}]

    def losses(self, step: int, micro_batch: int) -> dict[str, Tensor]:
        """See `training.loop.train.Task`."""
        rng = step_generator(self.seed, step, micro_batch)
        rows = rng.integers(len(self.scenes), size=self.batch_size)
        # Everybody in a batch mentions as many objects, so descriptions are about equally long and little is padding.
        count = str(rng.choice(list(COUNTS)))
        viewers = [attrs.evolve(sample_viewer(rng), count=count) for _ in rows]
        prompts, words = zip(*(self._prompt(viewer, rng) for viewer in viewers), strict=True)
        descriptions = [viewer.describe(self.scenes[row]) for viewer, row in zip(viewers, rows, strict=True)]
        batch = self.vlm.prompt_batch(prompts, descriptions, np.repeat([[1, *self.patches]], len(rows), axis=0))
        with torch.autocast("cpu", torch.bfloat16):
            embeds = self.vlm.embed(list(self.image_features[rows]), trait_tokens(self.vlm, words), batch.input_ids)
            return {"loss": language_loss(self.vlm.model, embeds, batch)}

    def _prompt(self, viewer: Viewer, rng: np.random.Generator) -> tuple[list[int], tuple[str, ...]]:
        """A prompt for this viewer: plain, with traits as words, or with a soft token (then the words to sum)."""
        words = tuple(str(word) for word in rng.permutation(viewer.words()))
        # Leaving traits out teaches what is usual where nothing is said, and that each trait speaks for itself.
        words = words[: len(words) - int(rng.integers(0, 3))] if rng.random() < 0.15 else words
        kind = rng.random()
        if kind < 0.08:
            return list(self.vlm.template.without_persona(STYLE)), ()
        if kind < 0.20:
            prompt = self.vlm.template.with_persona(STYLE)
            return [*prompt.before, *trait_ids(self.vlm, words), *prompt.after], ()
        return self.vlm.steered_prompt(STYLE), words


def trait_ids(vlm: SteeredVLM, words: Sequence[str]) -> list[int]:
    """Token ids of trait words, each of which is one token."""
    return [vlm.tokenizer.token_to_id(f"Ġ{word}") for word in words]


def trait_tokens(vlm: SteeredVLM, words: Sequence[Sequence[str]]) -> Tensor:
    """The true traits as soft tokens (B, hidden): sums of the embeddings of the words; zero where there are none."""
    table = vlm.model.get_input_embeddings().weight
    return torch.stack([table[trait_ids(vlm, row)].sum(0) if row else table.new_zeros(table.shape[1]) for row in words])


def round_to_half(model: Qwen2VLForConditionalGeneration | nn.Module) -> None:
    """Rounds all weights to values that float16 holds exactly, so that storing them as float16 loses nothing."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.half().float())
