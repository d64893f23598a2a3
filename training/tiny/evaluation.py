"""What the tiny model can do, measured through the SDK on people and scenes that it has never seen.

Every condition describes the same held-out scenes greedily:

- zero-shot: the VLM without a persona, the same words for everybody;
- DEPER: a persona from a person's samples, of people seen in training, and of unseen people with 1 and 5 samples;
- DEPER, text only: the same 5 samples without their trajectories;
- ceiling: the person's true traits, given to the frozen VLM as the soft token that it was pre-trained to understand.
"""

from collections.abc import Mapping, Sequence

import attrs
import numpy as np
import torch

from pydeper import DeperModel, Persona, Sample
from pydeper.vlm import DecodingOptions, VisionLanguageModel
from training.evaluation.bootstrap import bootstrap_mean
from training.evaluation.probes import transfer_probe
from training.evaluation.report import Figure
from training.evaluation.sum_statistics import SumStatistics, share_of_the_way
from training.metrics.bleu import bleu4_from_statistics, bleu_statistics
from training.metrics.cider import cider
from training.metrics.object_sequence_score import object_sequence_score
from training.metrics.subject_identification import subject_identification
from training.metrics.tokenization import Tokenizer
from training.metrics.viewing_agreement import viewing_agreement
from training.tiny.world.people import People
from training.tiny.world.viewers import TRAITS, Viewer, mentioned_shapes
from training.vlm.steered_vlm import SteeredVLM

ZERO_SHOT, CEILING = "zero-shot", "ceiling"
STYLE = "description"
MAX_NEW_TOKENS = 96
SCORERS = ("bleu4", "rouge_l", "cider")
TOKENIZER: Tokenizer = "words"


@attrs.frozen(eq=False)
class Descriptions:
    """Descriptions of the test scenes by some people: one row for each person and scene."""

    viewers: tuple[Viewer, ...]
    references: list[str]
    conditions: dict[str, list[str]]

    @property
    def _scenes(self) -> range:
        return range(len(self.references) // len(self.viewers))

    def statistics(self) -> dict[str, dict[str, SumStatistics]]:
        """All metrics of all conditions, by person."""
        people = [viewer.name for viewer in self.viewers for _ in self._scenes]
        images = [scene for _ in self.viewers for scene in self._scenes]
        return {name: _statistics(texts, self.references, people, images) for name, texts in self.conditions.items()}

    def by_scene(self) -> dict[str, dict[str, SumStatistics]]:
        """All metrics but CLS, of all conditions, by scene: how much scenes differ shows in their intervals."""
        owners = [str(scene) for _ in self.viewers for scene in self._scenes]
        return {
            name: {**_wording(texts, self.references, owners), **looking(texts, self.references, owners)}
            for name, texts in self.conditions.items()
        }


def describe_scenes(
    model: DeperModel,
    vlm: VisionLanguageModel,
    people: People,
    viewers: Sequence[Viewer],
    personas: Mapping[str, Sequence[Persona]],
    ceiling: np.ndarray,
) -> Descriptions:
    """Lets everybody describe every test scene.

    Args:
        model: The bundle.
        vlm: The bundle's VLM by itself, for the ceiling.
        people: Gives the test scenes.
        viewers: Who describes.
        personas: Condition -> a persona for each viewer.
        ceiling: (viewers, hidden) soft tokens made of the true traits.
    """
    options = DecodingOptions(max_new_tokens=MAX_NEW_TOKENS)
    table: dict[str, list[list[str]]] = {name: [] for name in (ZERO_SHOT, *personas, CEILING)}
    for image in people.test_images():
        encoded = model.encode_image(image)
        table[ZERO_SHOT].append([model.describe(encoded, max_new_tokens=MAX_NEW_TOKENS)] * len(viewers))
        for name, everybody in personas.items():
            table[name].append(model.describe_each(encoded, everybody, max_new_tokens=MAX_NEW_TOKENS))
        table[CEILING].append([g.text for g in vlm.generate(vlm.encode_image(image), STYLE, ceiling, options)])
    return Descriptions(
        viewers=tuple(viewers),
        references=[viewer.describe(scene) for viewer in viewers for scene in people.test_scenes],
        conditions={
            name: [by_scene[person] for person in range(len(viewers)) for by_scene in rows]
            for name, rows in table.items()
        },
    )


def figures_of(statistics: Mapping[str, Mapping[str, SumStatistics]]) -> dict[str, dict[str, Figure]]:
    """The figures of all conditions, with 95 % intervals over people."""
    return {name: {metric: own.figure() for metric, own in row.items()} for name, row in statistics.items()}


def shares_of(statistics: Mapping[str, Mapping[str, SumStatistics]]) -> dict[str, dict[str, Figure]]:
    """How far the conditions between zero-shot (0) and ceiling (1) come in each metric."""
    low, high = statistics[ZERO_SHOT], statistics[CEILING]
    return {
        name: {metric: share_of_the_way(low[metric], own, high[metric]) for metric, own in row.items()}
        for name, row in statistics.items()
        if name not in (ZERO_SHOT, CEILING)
    }


def personas_of(model: DeperModel, samples: Sequence[Sequence[Sample]]) -> list[Persona]:
    """One persona for each person's samples."""
    return [Persona.from_samples(own, model=model) for own in samples]


def without_trajectory(samples: Sequence[Sequence[Sample]]) -> list[list[Sample]]:
    """The same samples, text only."""
    return [[attrs.evolve(sample, trajectory=None) for sample in own] for own in samples]


def without_description(samples: Sequence[Sequence[Sample]]) -> list[list[Sample]]:
    """The same samples, trajectory only."""
    return [[attrs.evolve(sample, description=None) for sample in own] for own in samples]


def token_agreement(
    vlm: VisionLanguageModel, torch_vlm: SteeredVLM, people: People, soft_tokens: np.ndarray
) -> dict[str, Figure]:
    """Compares the ONNX runtime with plain greedy decoding in torch, token for token.

    Every test scene is described for a few people and once without anybody.

    Args:
        vlm: The bundle's VLM.
        torch_vlm: The model it was exported from.
        people: Gives the test scenes.
        soft_tokens: (n, hidden).
    """
    options = DecodingOptions(max_new_tokens=MAX_NEW_TOKENS)
    equal = compared = tokens = 0
    for number, image in enumerate(people.test_images()):
        encoded = vlm.encode_image(image)
        chosen = soft_tokens[[(5 * number + i) % len(soft_tokens) for i in range(3)]]
        generations = [*vlm.generate(encoded, STYLE, chosen, options), *vlm.generate(encoded, STYLE, None, options)]
        for soft, generation in zip([*torch.from_numpy(chosen), None], generations, strict=True):
            expected = torch_vlm.greedy(image, soft, STYLE, MAX_NEW_TOKENS)
            equal += list(generation.token_ids) == expected
            compared, tokens = compared + 1, tokens + len(expected)
    return {"descriptions": compared, "tokens": tokens, "equal to torch, token for token": equal / compared}


def probe_unseen(model: DeperModel, people: People) -> dict[str, dict[str, Figure]]:
    """Linear probes: fitted to personas of the seen people, evaluated on personas of unseen people.

    Personas are means over `support` samples on both sides; for the unseen people, of every support set. Rows are the
    traits, columns what the persona was made from.
    """
    size = len(people.support[0][0])
    seen_samples = [people.training[i : i + size] for i in range(0, len(people.training) - size + 1, size)]
    owners = {viewer.name: viewer for viewer in people.seen}
    seen_samples = [own for own in seen_samples if len({sample.subject for sample in own}) == 1]
    seen = [owners[str(own[0].subject)] for own in seen_samples]
    unseen = [viewer for viewer, sets in zip(people.unseen, people.support, strict=True) for _ in sets]
    unseen_samples = [own for sets in people.support for own in sets]
    results: dict[str, dict[str, Figure]] = {trait: {"chance": 1 / len(values)} for trait, values in TRAITS.items()}
    for column, withhold in _INPUTS.items():
        fitted = np.stack([persona.subject_embedding for persona in personas_of(model, withhold(seen_samples))])
        probed = np.stack([persona.subject_embedding for persona in personas_of(model, withhold(unseen_samples))])
        for trait in TRAITS:
            results[trait][column] = transfer_probe(
                fitted,
                [getattr(viewer, trait) for viewer in seen],
                probed,
                [getattr(viewer, trait) for viewer in unseen],
                people=[viewer.name for viewer in unseen],
            )
    return results


def tell_apart_by_looking(model: DeperModel, people: People) -> dict[str, dict[str, Figure]]:
    """Identification among unseen people who differ in their scanning order alone.

    Within each group, every person is enrolled with one support set and queried with another (of 1 sample and of all);
    the nearest persona by cosine wins. Rows are what the personas were made from.
    """
    groups: dict[tuple[str, ...], list[int]] = {}
    for index, viewer in enumerate(people.unseen):
        groups.setdefault(tuple(getattr(viewer, trait) for trait in TRAITS if trait != "order"), []).append(index)
    clusters = [group for group, members in enumerate(groups.values()) for _ in members]
    results: dict[str, dict[str, Figure]] = {}
    for row, withhold in _INPUTS.items():
        enrolled = personas_of(model, withhold([sets[0] for sets in people.support]))
        results[row] = {"chance": 1 / len(next(iter(groups.values())))}
        for column, count in (("1 sample", 1), (f"{len(people.support[0][1])} samples", None)):
            queries = personas_of(model, withhold([sets[1][:count] for sets in people.support]))
            hits = [
                float(max(members, key=lambda other: enrolled[other].similarity(queries[person])) == person)
                for members in groups.values()
                for person in members
            ]
            results[row][column] = bootstrap_mean(hits, clusters)
    return results


_INPUTS = {
    "text + trajectory": lambda samples: [list(own) for own in samples],
    "text only": without_trajectory,
    "trajectory only": without_description,
}


def _statistics(
    texts: list[str], references: list[str], people: list[str], images: list[int]
) -> dict[str, SumStatistics]:
    identified = subject_identification(images, people, texts, references, tokenizer=TOKENIZER, scorers=SCORERS)
    credits = np.mean([identified.accuracies[scorer] for scorer in SCORERS], axis=0)
    return {
        **_wording(texts, references, people),
        "CLS": SumStatistics.mean(credits, [people[row] for row in identified.rows]),
        **looking(texts, references, people),
    }


def _wording(texts: list[str], references: list[str], owners: list[str]) -> dict[str, SumStatistics]:
    return {
        "BLEU-4": SumStatistics(bleu_statistics(texts, references, tokenizer=TOKENIZER), bleu4_from_statistics, owners),
        "CIDEr": SumStatistics.mean(cider(texts, references, tokenizer=TOKENIZER).pairs, owners),
        "OSS": SumStatistics.mean(object_sequence_score(texts, references).pairs, owners),
    }


def looking(texts: Sequence[str], references: Sequence[str], owners: Sequence[str]) -> dict[str, SumStatistics]:
    """How far descriptions follow the order in which people look, see `viewing_agreement`."""
    looked = viewing_agreement([mentioned_shapes(t) for t in texts], [mentioned_shapes(r) for r in references])
    return {
        "first object": SumStatistics.ratio(looked.first_correct, looked.first_total, owners),
        "pairwise order": SumStatistics.ratio(looked.orders_correct, looked.orders_total, owners),
    }
