"""The model card: what the Hub reads of a bundle (its front matter), and what people should know before they use it."""

import json
import re
from pathlib import Path
from typing import Any

import attrs

from pydeper import hub
from pydeper.bundle.bundle import read_config
from pydeper.bundle.config import BundleConfig
from pydeper.bundle.layout import CONFIG
from pydeper.errors import BundleError
from pydeper.files.atomic import atomic_path
from pydeper.publish import IMAGE_ENCODER_LICENCE
from pydeper.untrusted import parse_json
from training.evaluation.bootstrap import Interval
from training.evaluation.report import Figure, figure_from_json, format_table

EVALUATION = "evaluation.json"
LICENCE = "LICENSE"
TASK = "image-to-text"
TAGS = ["image-captioning", "personalization", "onnx", "deper"]
DATASETS, LANGUAGE = "datasets", "language"
"""Facts of the training (`config.json`) that the Hub has fields for: its data sets' ids, and ISO 639 codes."""

_OURS = "DEPER"
"""Rows of an evaluation that begin so are this model's; the others are what it is compared with."""

_HUB_LICENCES = {"apache-2.0", "mit", "bsd-3-clause", "cc-by-4.0", "cc-by-nc-4.0", "cc-by-sa-4.0", "cc0-1.0"}
_METRICS = {"BLEU-4": "bleu", "ROUGE-L": "rouge", "METEOR": "meteor", "CIDEr": "cider"}


@attrs.frozen
class Evaluation:
    """What `training.evaluation.report.write_report` writes: system -> metric -> figure, and the facts."""

    title: str
    facts: dict[str, Any]
    results: dict[str, dict[str, Figure]]


def read_evaluation(path: Path) -> Evaluation:
    """Reads the JSON file of a report.

    Raises:
        BundleError: It is something else; names the file and the place.
    """
    try:
        whole = parse_json(path.read_bytes(), BundleError)
        results = {
            row: {metric: figure_from_json(figure) for metric, figure in figures.items()}
            for row, figures in whole["results"].items()
        }
        return Evaluation(str(whole["title"]), dict(whole["facts"]), results)
    except (BundleError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise BundleError(
            f"{path}: is not an evaluation as `python -m training` writes it ({type(error).__name__}: {error}); give "
            "the JSON file of a report"
        ) from error


def card_of(folder: Path) -> str:
    """Returns the card of a bundle's folder, from its `config.json` and what else it holds.

    Raises:
        BundleError: `config.json` or `evaluation.json` is malformed.
    """
    evaluation = folder / EVALUATION
    return model_card(
        read_config(folder),
        read_evaluation(evaluation) if evaluation.is_file() else None,
        texts=[name for name in (LICENCE, IMAGE_ENCODER_LICENCE) if (folder / name).is_file()],
    )


def model_card(config: BundleConfig, evaluation: Evaluation | None = None, *, texts: list[str] | None = None) -> str:
    """Returns the model card: the front matter that the Hub reads, then Markdown for people.

    Args:
        config: The bundle's.
        evaluation: How well the model does.
        texts: The licence texts in the bundle, by file name.
    """
    encoder, vlm, texts = config.persona_encoder, config.vlm, texts or []
    style = next(iter(config.prompts.styles))
    styles = "\n".join(f"- `{name}`: `{text.with_persona}`" for name, text in config.prompts.styles.items())
    revision = f" at revision `{vlm.base_revision}`" if vlm.base_revision else ""
    fetched = f"\n| its ONNX files, not in this folder | `{vlm.source}` at `{vlm.source_revision}` | see there |"
    whole = f"{config.licence}{_text_of(LICENCE, texts)}"
    image_encoder = f"{encoder.image_encoder.licence}{_text_of(IMAGE_ENCODER_LICENCE, texts)}"
    return f"""\
---
{_front_matter(config, evaluation, texts)}
---

# {config.name}

{config.description}

A persona is one person's subject embedding, {encoder.subject_embedding_size} numbers distilled from a few samples of
how that person looks at images and describes them (DEPER, arXiv 2512.06662). It steers a frozen vision-language model
as one soft token, so that the model describes any image as that person would.

## Use

```python
import pydeper

model = pydeper.DeperModel.from_pretrained("PATH OR HUB ID OF THIS FOLDER")
persona = pydeper.Persona.from_samples(pydeper.read_samples("ana.jsonl"), model=model, name="ana")
print(model.describe("photo.jpg", persona, style={json.dumps(style)}))
```

## Intended use

To describe images in the words, order and detail of a person who wants that: for people who are read to, for authors,
for research on how people look and speak. It is not made to find out who somebody is, to imitate anybody without their
consent, or to decide anything about a person.

## Limits

- Descriptions are a model's guesses: they can be wrong, and name what is not there.
- A persona from few samples is a rough one, and says as much about those images as about the person.
- What the people and images of the training had in common, the model takes for granted; see "Training" below.

## What it takes

- Samples for a persona: {", ".join(encoder.modalities)}; about 5 of one person are enough.
- At most {encoder.max_fixations} fixations and {encoder.max_description_tokens} description tokens a sample are read.
- Styles, with the prompt of each:

{styles}

## Parts and licences

| part | made from | licence |
|---|---|---|
| this model as a whole | | {whole} |
| vision-language model | `{vlm.base_model}`{revision} | see there |{fetched if vlm.is_on_hub else ""}
| image encoder of the persona encoder | `{encoder.image_encoder.name}` | {image_encoder} |

Persona encoder: `{encoder.fingerprint}`. Personas made with another persona encoder are refused.
{_training(config)}{_evaluated(evaluation) if evaluation else ""}
## Mind

A subject embedding is drawn from a person's gaze and words: treat it as personal data, and ask before you share it.
"""


def _text_of(name: str, texts: list[str]) -> str:
    return f", text in [`{name}`]({name})" if name in texts else ""


def _training(config: BundleConfig) -> str:
    facts = "\n".join(f"- {name}: {_shown(value)}" for name, value in config.training.items())
    return f"\n## Training\n\n{facts}\n" if facts else ""


def _evaluated(evaluation: Evaluation) -> str:
    facts = "\n".join(f"- {name}: {_shown(value)}" for name, value in evaluation.facts.items())
    table = format_table(evaluation.results)
    source = f"All figures: [`{EVALUATION}`]({EVALUATION})."
    return "\n\n".join(("\n## Evaluation", f"{evaluation.title}:", table, facts, source)) + "\n"


def _front_matter(config: BundleConfig, evaluation: Evaluation | None, texts: list[str]) -> str:
    """Returns YAML, as the Hub's own library writes it."""
    from huggingface_hub import ModelCardData

    licence, base = config.licence.lower(), config.vlm.base_model
    named: dict[str, Any] = {"license": licence}
    if licence not in _HUB_LICENCES:
        named = {
            "license": "other",
            "license_name": config.licence,
            "license_link": LICENCE if LICENCE in texts else None,
        }
    if hub.is_repo_id(base):
        named |= {"base_model": base, "base_model_revision": config.vlm.base_revision}
    results = _results(evaluation) if evaluation else []
    return ModelCardData(
        library_name="pydeper",
        pipeline_tag=TASK,
        datasets=config.training.get(DATASETS),
        language=config.training.get(LANGUAGE),
        tags=TAGS,
        model_name=config.name if results else None,
        eval_results=results or None,
        **named,
    ).to_yaml()


def _results(evaluation: Evaluation) -> list[Any]:
    """What the model's own rows say, for the Hub's `model-index`."""
    from huggingface_hub import EvalResult

    return [
        EvalResult(
            task_type=TASK,
            dataset_type=_slug(evaluation.title),
            dataset_name=evaluation.title,
            dataset_config=row,
            metric_type=_METRICS.get(metric, _slug(metric)),
            metric_name=metric,
            metric_value=round(figure.estimate if isinstance(figure, Interval) else figure, 4),
        )
        for row, figures in evaluation.results.items()
        if row.startswith(_OURS)
        for metric, figure in figures.items()
        if figure is not None
    ]


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "unnamed"


def _shown(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def add_facts(folder: Path, facts: dict[str, Any], files: dict[str, Path]) -> None:
    """Adds to a bundle what its card is to tell: facts of the training to `config.json`, and files by their name.

    The manifest is the caller's to write anew.

    Raises:
        BundleError: `config.json` is malformed, or a file is not what it should be.
    """
    config = read_config(folder)
    if EVALUATION in files:
        read_evaluation(files[EVALUATION])
    for name, source in files.items():
        with atomic_path(folder / name) as temporary:
            temporary.write_bytes(source.read_bytes())
    if facts:
        with atomic_path(folder / CONFIG) as temporary:
            text = attrs.evolve(config, training={**config.training, **facts}).to_json()
            temporary.write_text(text, encoding="utf-8")
