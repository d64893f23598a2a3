"""A bundle describes the images of a samples file through the SDK, each for the person who described it.

The predictions go to a file; an interrupted run goes on where it stopped.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import attrs
from tqdm import tqdm

from pydeper import DeperModel, Persona, Sample
from pydeper.bundle import bundle
from pydeper.bundle.layout import MANIFEST
from pydeper.errors import InvalidArgumentError, InvalidSampleError
from training.evaluation.predictions import Prediction, PredictionsFile, References, image_name
from training.preparation.splits import QUERY, SEEN_SPLITS, SPLITS, SUPPORT, TEST, TRAIN, UNSEEN_SPLITS, VAL
from training.progress import progress

DESCRIBED_SPLITS = (VAL, TEST, QUERY)
TRAINING_SAMPLES = 100
"""Most training samples that the persona of a seen person is the mean of (paper: 100)."""

BATCH_SIZE = 32
"""Descriptions that are generated at a time."""


@attrs.frozen(kw_only=True)
class DescribeSettings:
    """Which bundle describes which samples, and how.

    Attributes:
        bundle: Hub id, folder, or "tiny".
        splits: The splits of the samples file whose images are described, see `training.preparation.splits`.
        style: Prompt style.
        max_new_tokens: Longest description (paper: 512).
        zero_shot: Also let the bundle's VLM describe without a persona, as a system of its own.
    """

    bundle: str
    splits: tuple[str, ...] = (TEST, QUERY)
    style: str = "description"
    max_new_tokens: int = 512
    zero_shot: bool = False


def describe(
    settings: DescribeSettings, samples: Sequence[Sample], references: References, folder: Path
) -> tuple[list[Prediction], dict[str, object]]:
    """Lets a bundle describe the images of a samples file, each for the person who described it.

    A seen person's persona is the mean over their first `TRAINING_SAMPLES` samples of split "train", an unseen person's
    over their samples of split "support".

    Args:
        settings: The bundle, and what it describes.
        samples: All samples of the file.
        references: Their index.
        folder: Gets `predictions.jsonl`, whole at the end; `predictions.partial.jsonl` and
            `predictions.settings.json` make an interrupted run go on.

    Returns:
        The predictions, and what a report should say of them.

    Raises:
        InvalidSampleError: Nobody is to be described for, or somebody without samples to make a persona from.
        InvalidArgumentError: A setting is not one of the model's, or the folder holds other predictions.
        BundleError: The bundle cannot be opened.
    """
    if wrong := [split for split in settings.splits if split not in DESCRIBED_SPLITS]:
        raise InvalidArgumentError(f"splits: {wrong[0]!r} is none of {', '.join(DESCRIBED_SPLITS)}")
    targets, left_out = _targets(samples, settings.splits, references.path)
    support = _support(samples, {str(target.subject) for target in targets}, references.path)
    opened = bundle.open_bundle(settings.bundle)
    model = DeperModel(opened)
    requests = _requests(targets, model.model_id, True, references)
    if settings.zero_shot:
        requests += _requests(targets, f"{model.model_id}, no persona", False, references)
    identity = attrs.asdict(settings) | {
        "bundle": model.model_id,
        "manifest": hashlib.sha256((opened.folder / MANIFEST).read_bytes()).hexdigest(),
        "samples": hashlib.sha256(references.path.read_bytes()).hexdigest(),
    }
    predictions = PredictionsFile(folder, identity, [request.pending for request in requests])
    if rest := requests[len(predictions.done) :]:
        people = progress(support.items(), "personas", "people", total=len(support))
        personas = {subject: Persona.from_samples(own, model=model) for subject, own in people}
        _generate(rest, model, personas, settings, predictions)
    predictions.finish()
    facts: dict[str, object] = {
        "model": f"{model.model_id}, persona encoder {model.config.persona_encoder.fingerprint[:19]}",
        "personas": _persona_facts(support),
        "decoding": f"greedy, at most {settings.max_new_tokens} tokens, style {settings.style!r}",
    }
    if left_out:
        facts["left out"] = f"{left_out} {'sample' if left_out == 1 else 'samples'} without a description"
    return predictions.done, facts


@attrs.frozen
class _Request:
    """An image to describe, for a person or (None) without a persona, and the prediction that will hold the text."""

    image: str
    person: str | None
    pending: Prediction


def _requests(targets: Sequence[Sample], system: str, steered: bool, references: References) -> list[_Request]:
    requests = []
    for target in targets:
        subject = str(target.subject)
        pending = Prediction(
            dataset=references.dataset_of(target),
            system=system,
            image=image_name(target.image, references.path.parent),
            subject=subject,
            prediction="",
            reference=str(target.description),
        )
        requests.append(_Request(str(target.image), subject if steered else None, pending))
    return requests


def _generate(
    requests: Sequence[_Request],
    model: DeperModel,
    personas: Mapping[str, Persona],
    settings: DescribeSettings,
    predictions: PredictionsFile,
) -> None:
    done = len(predictions.done)
    with tqdm(total=done + len(requests), initial=done, unit="description", disable=None) as progress:
        for start in range(0, len(requests), BATCH_SIZE):
            chunk = [(request.image, request.person) for request in requests[start : start + BATCH_SIZE]]
            once = list(dict.fromkeys(chunk))  # without a persona, an image has one description for all its people
            texts = model.describe_batch(
                [(image, None if person is None else personas[person]) for image, person in once],
                style=settings.style,
                max_new_tokens=settings.max_new_tokens,
            )
            text_of = dict(zip(once, texts, strict=True))
            predictions.append([text_of[pair] for pair in chunk])
            progress.update(len(chunk))


def _targets(samples: Sequence[Sample], splits: Sequence[str], path: Path) -> tuple[list[Sample], int]:
    """The samples to describe, those of one image together, and how many have nothing to compare with."""
    chosen = [sample for sample in samples if sample.split in splits]
    targets = [sample for sample in chosen if sample.description is not None]
    if not targets:
        found = ", ".join(f"{split}: {count}" for split, count in Counter(sample.split for sample in samples).items())
        raise InvalidSampleError(
            f"{path}: holds no described sample of split {' or '.join(map(repr, splits))} (samples by split: {found}); "
            "choose others (--splits), or divide the samples into parts"
        )
    targets.sort(key=lambda sample: (str(sample.image), str(sample.subject)))
    return targets, len(chosen) - len(targets)


def _support(samples: Sequence[Sample], people: set[str], path: Path) -> dict[str, list[Sample]]:
    """For each person, the samples that the persona is made from."""
    by_split: dict[str, dict[str | None, list[Sample]]] = defaultdict(lambda: defaultdict(list))
    for sample in samples:
        if sample.split is not None and sample.split not in SPLITS:
            raise InvalidSampleError(f"{sample.source}: split: {sample.split!r} is none of {', '.join(SPLITS)}")
        by_split[str(sample.subject)][sample.split].append(sample)
    support = {}
    for person in sorted(people):
        own = by_split[person]
        seen, unseen = ([split for split in splits if split in own] for splits in (SEEN_SPLITS, UNSEEN_SPLITS))
        if seen and unseen:
            raise InvalidSampleError(
                f"{path}: subject {person!r} has samples of split {seen[0]!r} and {unseen[0]!r}; nobody is both "
                "seen in training and unseen"
            )
        split = TRAIN if seen else SUPPORT
        if not own[split]:
            raise InvalidSampleError(
                f"{path}: subject {person!r} has no sample of split {split!r} to make a persona from; add some"
            )
        support[person] = own[split][:TRAINING_SAMPLES] if seen else own[split]
    return support


def _persona_facts(support: Mapping[str, Sequence[Sample]]) -> str:
    kinds = []
    for name, split in (("seen", TRAIN), ("unseen", SUPPORT)):
        sizes = [len(own) for own in support.values() if own[0].split == split]
        if sizes:
            spread = str(min(sizes)) if min(sizes) == max(sizes) else f"{min(sizes)} to {max(sizes)}"
            kinds.append(f"{len(sizes)} {name} people, from {spread} {split} samples each")
    return "; ".join(kinds)
