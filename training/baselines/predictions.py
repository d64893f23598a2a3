"""Asking a system everything, into a predictions file that an interrupted run goes on with."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
from tqdm import tqdm

from pydeper.atomic import atomic_path
from training.baselines.people import Person, Question
from training.baselines.system import System
from training.evaluation.predictions import Prediction, read_predictions
from training.generation import Prompt, greedy, see
from training.loop import TrainingError
from training.vlm import SteeredVLM

PREDICTIONS, PARTIAL, SETTINGS = "predictions.jsonl", "predictions.partial.jsonl", "predictions.settings.json"


def predict(
    vlm: SteeredVLM,
    name: str,
    build: Callable[[], System],
    people: Sequence[Person],
    folder: Path,
    settings: Mapping[str, Any],
    *,
    max_new_tokens: int,
    batch_size: int = 16,
) -> Path:
    """Answers every question greedily and writes `predictions.jsonl`, or goes on where an interrupted run left off.

    `python -m training evaluate` reads the file. It appears when it is whole; until then its lines are in
    `predictions.partial.jsonl`.

    Args:
        vlm: The frozen VLM.
        name: The system's.
        build: Makes the system; called only if there is a question left.
        people: Who is asked what.
        folder: Where to.
        settings: All that the predictions depend on, as plain JSON; lines made with others are refused.
        max_new_tokens: The most tokens of a description.
        batch_size: Questions at a time.

    Returns:
        The file's path.

    Raises:
        TrainingError: The folder holds predictions that were made with other settings or for other samples.
        InvalidImageError: An image cannot be read.
    """
    questions = [(person, question) for person in people for question in person.asked]
    unanswered = [attrs.evolve(question.unanswered, system=name) for _, question in questions]
    folder.mkdir(parents=True, exist_ok=True)
    _check_settings(folder / SETTINGS, {**settings, "system": name, "max_new_tokens": max_new_tokens})
    whole, partial = folder / PREDICTIONS, folder / PARTIAL
    if whole.exists():
        if _answered(whole, unanswered) < len(unanswered):
            raise TrainingError(f"{whole}: lacks answers; delete it, or choose another folder")
        return whole
    done = _answered(partial, unanswered)
    system = build()
    bar = tqdm(total=len(questions), initial=done, desc=f"{name}: descriptions", mininterval=1.0)
    with partial.open("a", encoding="utf-8") as file, bar:
        for prompts in _prompts(vlm, system, questions[done:], batch_size):
            for ids in greedy(vlm, prompts, max_new_tokens, batch_size=batch_size):
                file.write(attrs.evolve(unanswered[done], prediction=vlm.tokenizer.decode(ids).strip()).line())
                done += 1
            file.flush()
            bar.update(len(prompts))
    partial.replace(whole)
    return whole


def _prompts(
    vlm: SteeredVLM, system: System, questions: Sequence[tuple[Person, Question]], size: int
) -> Iterator[list[Prompt]]:
    for start in range(0, len(questions), size):
        batch = questions[start : start + size]
        distinct = {question.unanswered.image: question.sample for _, question in batch}
        seen = dict(zip(distinct, see(vlm, [sample.open_image() for sample in distinct.values()]), strict=True))
        yield [system.prompt(person, seen[question.unanswered.image]) for person, question in batch]


def _check_settings(path: Path, settings: Mapping[str, Any]) -> None:
    settings = json.loads(json.dumps(settings))
    if not path.exists():
        with atomic_path(path) as temporary:
            temporary.write_text(json.dumps(settings, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        return
    before = json.loads(path.read_text(encoding="utf-8"))
    if different := sorted(key for key in {*before, *settings} if before.get(key) != settings.get(key)):
        told = ", ".join(f"{key} was {before.get(key)!r}, is {settings.get(key)!r}" for key in different)
        raise TrainingError(f"{path}: these predictions were made with other settings ({told}); choose another folder")


def _answered(path: Path, unanswered: Sequence[Prediction]) -> int:
    """How many questions the file answers; a line that an interruption cut short is dropped from it."""
    if not path.exists():
        return 0
    content = path.read_bytes()
    kept = content[: content.rfind(b"\n") + 1]
    if kept != content:
        with atomic_path(path) as temporary:
            temporary.write_bytes(kept)
    done = read_predictions(path) if kept else []
    for number, (answer, asked) in enumerate(zip(done, unanswered, strict=False), 1):
        if attrs.evolve(answer, prediction="") != asked:
            raise TrainingError(f"{path}:{number}: answers another question; the samples are not the same ones")
    if len(done) > len(unanswered):
        raise TrainingError(f"{path}: {len(done)} lines for {len(unanswered)} questions; choose another folder")
    return len(done)
