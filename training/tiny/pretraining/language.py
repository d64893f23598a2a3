"""Pre-training of the language side: descriptions of scenes in the manner that a prompt asks for.

So that one token can steer the model later, most prompts hold, in the slot of `<subj>`, one soft token that is the sum
of the embeddings of the words for a viewer's traits.

Before each object of an answer, the first half of the layers is also asked where it is (`PointerHead`). Without that,
the model learned words and details in hundreds of steps, and the orders in thousands hardly at all.
"""

from collections.abc import Sequence
from typing import Any

import attrs
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pydeper.bundle.tokenizer import token_id
from pydeper.vlm.prompt import rotary_positions
from training.precision import bfloat16_autocast
from training.seeding import step_generator
from training.tiny.world.rendering import render
from training.tiny.world.sampling import Layout, sample_scene
from training.tiny.world.scenes import Scene
from training.tiny.world.viewers import COUNTS, PLAIN, Viewer, sample_viewer
from training.vlm.steered_vlm import IGNORE_INDEX, SteeredVLM

STYLE = "description"
_DRAWN_AT_A_TIME = 256


@attrs.frozen(eq=False)
class SeenScenes:
    """Scenes as the frozen vision tower sees them.

    Attributes:
        scenes: The scenes.
        features: Of each, (rows, columns, hidden) bfloat16.
        same_shape: For each shape of picture, the numbers of its scenes.
    """

    scenes: Sequence[Scene]
    features: Sequence[Tensor]
    same_shape: Sequence[np.ndarray]


def see_scenes(vlm: SteeredVLM, count: int, seed: int) -> SeenScenes:
    """Draws scenes, each from a seed of its own, and encodes them; the pictures themselves are not kept."""
    scenes = [_sample(step_generator(seed, number)) for number in range(count)]
    features: list[Tensor] = []
    for start in range(0, count, _DRAWN_AT_A_TIME):
        images = [render(scene) for scene in scenes[start : start + _DRAWN_AT_A_TIME]]
        features += [image.bfloat16() for image in vlm.image_maps(images)]
    shapes = [tuple(image.shape) for image in features]
    return SeenScenes(
        scenes,
        features,
        [np.array([i for i, own in enumerate(shapes) if own == shape]) for shape in sorted(set(shapes))],
    )


def _sample(rng: np.random.Generator) -> Scene:
    """Half of the scenes leave no doubt about any order, half are as they come: empty ones and crowds among them."""
    kind = rng.random()
    if kind < 0.5:
        return sample_scene(rng, Layout((2, 6), clear=True))
    if kind < 0.55:
        return sample_scene(rng, Layout((0, 0)))
    return sample_scene(rng, Layout((7, 12)) if kind < 0.58 else Layout((1, 6)))


@attrs.define(eq=False)
class LanguageTask:
    """Trains the language side on (scene, random viewer) pairs with the vision tower frozen.

    Attributes:
        vlm: The VLM; its language model is trained.
        seen: The scenes.
        batch_size: Pairs in a step.
        learning_rate: Peak rate of AdamW.
        seed: Seed of pairs and prompts.
        heads_warmup: So many steps, the first ones, in which the pointer's gradients stop at the pointer.
        bfloat16: Whether matrices are multiplied in bfloat16.
        viewers: So many pairs share a scene.
    """

    vlm: SteeredVLM
    seen: SeenScenes
    batch_size: int
    learning_rate: float
    seed: int
    heads_warmup: int = 0
    bfloat16: bool = False
    viewers: int = 4
    name: str = "language"
    state: nn.ModuleDict = attrs.field(init=False)
    _pointer: "PointerHead" = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        language = self.vlm.model.model.language_model
        language.requires_grad_(True)
        self._pointer = PointerHead(self.vlm.config.hidden_size)
        self.state = nn.ModuleDict({"language": language, "pointer": self._pointer})

    def parameter_groups(self) -> list[dict[str, Any]]:
        """See `training.loop.train.Task`."""
        return [
            {"params": list(self.state["language"].parameters()), "lr": self.learning_rate},
            {"params": list(self.state["pointer"].parameters()), "lr": self.learning_rate, "muon": False},
        ]

    def losses(self, step: int, micro_batch: int) -> dict[str, Tensor]:
        """See `training.loop.train.Task`."""
        rng = step_generator(self.seed, step, micro_batch)
        # One shape of picture and one number of objects a batch: rows are about equally long, and little is padding.
        sizes = np.array([len(rows) for rows in self.seen.same_shape])
        shape = self.seen.same_shape[int(rng.choice(len(sizes), p=sizes / sizes.sum()))]
        count = str(rng.choice(list(COUNTS)))
        scenes = shape[rng.integers(len(shape), size=self.batch_size // self.viewers)]
        answers = [
            [
                self._answer(self.seen.scenes[scene], attrs.evolve(sample_viewer(rng), count=count), rng)
                for _ in range(self.viewers)
            ]
            for scene in scenes
        ]
        features = [self.seen.features[scene] for scene in scenes]
        with bfloat16_autocast(features[0].device, wanted=self.bfloat16):
            return described_together_losses(
                self.vlm, self._pointer, features, answers, pointer_alone=step < self.heads_warmup
            )

    def _answer(self, scene: Scene, viewer: Viewer, rng: np.random.Generator) -> "Answer":
        """What somebody says of a scene, and what they are asked.

        The prompt is plain, then nobody in particular describes; or it names the traits in words; or it holds a soft
        token.
        """
        kind = rng.random()
        if kind < 0.15:
            return Answer.of(scene, PLAIN, list(self.vlm.template.without_persona(STYLE)))
        words = tuple(str(word) for word in rng.permutation(viewer.words()))
        if kind < 0.25:
            prompt = self.vlm.template.with_persona(STYLE)
            return Answer.of(scene, viewer, [*prompt.before, *trait_ids(self.vlm, words), *prompt.after])
        if kind < 0.35:  # leaving traits out teaches that each trait speaks for itself
            words = words[: len(words) - int(rng.integers(1, 3))]
        return Answer.of(scene, viewer, self.vlm.steered_prompt(STYLE), words)


@attrs.frozen
class Answer:
    """What somebody says of a scene, and what they are asked.

    Attributes:
        prompt: Token ids that follow the image.
        traits: The words that the prompt's soft token sums, if it has one.
        description: The answer.
        centres: Of each object in it, the centre, as fractions of the picture.
    """

    prompt: list[int]
    traits: tuple[str, ...]
    description: str
    centres: tuple[tuple[float, float], ...]

    @classmethod
    def of(cls, scene: Scene, viewer: Viewer, prompt: list[int], traits: tuple[str, ...] = ()) -> "Answer":
        """What a viewer says to a prompt."""
        width, height = scene.canvas
        centres = [(thing.centre[0] / width, thing.centre[1] / height) for thing in viewer.visit(scene)]
        return cls(prompt, traits, viewer.describe(scene), tuple(centres))


class PointerHead(nn.Module):
    """A throw-away head that finds the image token of the next object by a product of projections.

    Attention in the layers above can then find it in the same way (cf. Vinyals et al. 2015, "Pointer networks").
    """

    def __init__(self, hidden_size: int, size: int = 64) -> None:
        super().__init__()
        self.query, self.key = nn.Linear(hidden_size, size, bias=False), nn.Linear(hidden_size, size, bias=False)

    def forward(self, text: Tensor, image: Tensor) -> Tensor:
        """Scores of an image's tokens: text (n, hidden), image (n, image tokens, hidden) -> (n, image tokens)."""
        query, key = (head(F.rms_norm(x, x.shape[-1:])) for head, x in ((self.query, text), (self.key, image)))
        scores: Tensor = (key @ query[..., None])[..., 0] * query.shape[-1] ** -0.5
        return scores


def described_together_losses(
    vlm: SteeredVLM,
    pointer: PointerHead,
    features: Sequence[Tensor],
    answers: Sequence[Sequence[Answer]],
    *,
    pointer_alone: bool = False,
) -> dict[str, Tensor]:
    """The loss of several answers to each image, with the image in front of them only once.

    A row is the image followed by all its prompts and answers. Each of these sees the image and itself, and is numbered
    as if it alone followed the image; so the loss is that of one row an answer, at a fraction of the tokens.

    Args:
        vlm: The VLM.
        pointer: Finds the next object by what the first half of the layers made of text and image.
        features: (rows, columns, hidden) of each image; all of one shape.
        answers: For each image, its prompts and answers.
        pointer_alone: Whether the pointer's gradients stop at the pointer.

    Returns:
        "loss", a scalar in float32: the cross-entropies of the answers' tokens and of the pointer; and the latter's
        fraction that is right.
    """
    tokens, merge = vlm.config.tokens, vlm.config.vision.merge_size
    height, width = features[0].shape[:2]
    image = vlm.template.image_ids(height * width)
    grid = np.array([[1, height * merge, width * merge]])
    places, following = rotary_positions(image, tokens.image, grid, merge)
    articles = trait_ids(vlm, ("a", "an"))
    rows, pointed = [], []
    for row, own in enumerate(answers):
        ids, labels, groups, numbers = list(image), [IGNORE_INDEX] * len(image), [0] * len(image), [places]
        for group, answer in enumerate(own, 1):
            said = [*vlm.text_ids(answer.description), tokens.end[0]]
            begin = len(ids) + len(answer.prompt)
            found = [begin + i for i, token in enumerate(said) if token in articles]
            for place, (x, y) in zip(found, answer.centres, strict=True):
                # The article, "a" or "an", already depends on the object.
                pointed += [(row, column, int(y * height) * width + int(x * width)) for column in (place - 1, place)]
            ids += [*answer.prompt, *said]
            labels += [*[IGNORE_INDEX] * len(answer.prompt), *said]
            length = len(answer.prompt) + len(said)
            groups += [group] * length
            numbers.append(np.broadcast_to(np.arange(following, following + length), (3, length)))
        rows.append((ids, labels, groups, np.concatenate(numbers, axis=1)))
    length = max(len(ids) for ids, *_ in rows)
    input_ids = torch.full((len(rows), length), tokens.end[0])
    targets, group_of = torch.full((len(rows), length), IGNORE_INDEX), torch.full((len(rows), length), -1)
    positions = torch.zeros((3, len(rows), length), dtype=torch.int64)
    for i, (ids, own_labels, own_groups, own_places) in enumerate(rows):
        end = len(ids)
        input_ids[i, :end], targets[i, :end] = torch.tensor(ids), torch.tensor(own_labels)
        group_of[i, :end], positions[:, i, :end] = torch.tensor(own_groups), torch.from_numpy(own_places)
    sees = (group_of[:, :, None] == group_of[:, None, :]) | (group_of[:, None, :] == 0)
    bias = torch.zeros(sees.shape).masked_fill_(~sees.tril(), -torch.inf)[:, None]
    embeds = vlm.embed([own.flatten(0, 1) for own in features], None, input_ids)
    soft = trait_tokens(vlm, [answer.traits for own in answers for answer in own if tokens.subject in answer.prompt])
    embeds = embeds.masked_scatter((input_ids == tokens.subject)[..., None], soft.to(embeds))
    layers = vlm.model.model.language_model(
        inputs_embeds=embeds,
        position_ids=positions,
        attention_mask=bias,
        use_cache=False,
        output_hidden_states=True,
    )
    targets = targets[:, 1:]
    counted = targets != IGNORE_INDEX
    said_loss = F.cross_entropy(vlm.model.lm_head(layers.last_hidden_state[:, :-1][counted]).float(), targets[counted])
    if not pointed:
        return {"loss": said_loss}
    half = layers.hidden_states[(len(layers.hidden_states) - 1) // 2]
    first = image.index(tokens.image)
    pointer_loss, right = _pointer_loss(
        pointer, half.detach() if pointer_alone else half, slice(first, first + height * width), pointed
    )
    return {"loss": said_loss + pointer_loss, "loss of answers": said_loss.detach(), "pointer right": right}


def _pointer_loss(
    pointer: PointerHead, hidden: Tensor, image: slice, pointed: Sequence[tuple[int, int, int]]
) -> tuple[Tensor, Tensor]:
    """Cross-entropy of a pointer, and the fraction that is right.

    Args:
        pointer: The head.
        hidden: (B, L, hidden) of a layer.
        image: Where the image's tokens are in each row.
        pointed: Row, column and the number of the image token that is wanted there.
    """
    row, column, token = torch.tensor(pointed).T
    scores = pointer(hidden[row, column], hidden[:, image][row]).float()
    return F.cross_entropy(scores, token), (scores.argmax(-1) == token).float().mean()


def trait_ids(vlm: SteeredVLM, words: Sequence[str]) -> list[int]:
    """Token ids of trait words, each of which is one token."""
    return [token_id(vlm.tokenizer, f"Ġ{word}") for word in words]


def trait_tokens(vlm: SteeredVLM, words: Sequence[Sequence[str]]) -> Tensor:
    """The true traits as soft tokens (B, hidden): sums of the embeddings of the words; zero where there are none."""
    table = vlm.model.get_input_embeddings().weight
    none = table.new_zeros(table.shape[1])
    return torch.stack([none, *(table[trait_ids(vlm, row)].sum(0) if row else none for row in words)])[1:]
