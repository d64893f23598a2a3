"""Which step's weights are kept: caption metrics of descriptions produced on the validation split."""

from collections.abc import Container, Sequence

from training.config import METEOR
from training.metrics.bleu import bleu1, bleu4
from training.metrics.cider import DocumentFrequency, cider
from training.metrics.meteor import meteor
from training.metrics.requirements import check_meteor
from training.metrics.rouge import rouge_l


def check_requirements(selection: Container[str]) -> None:
    """Says before hours of training what an evaluation would lack.

    Raises:
        MissingRequirementError: METEOR is to be weighed, and Java or pycocoevalcap is missing.
    """
    if METEOR in selection:
        check_meteor(f"selection: {METEOR}")


def caption_figures(
    candidates: Sequence[str], references: Sequence[str], corpus: Sequence[str], *, with_meteor: bool = False
) -> dict[str, float]:
    """BLEU-1, BLEU-4, CIDEr, ROUGE-L and maybe METEOR of produced descriptions, each against that person's own.

    They are for choosing among the steps of one run, with plain words as tokens: no figures to report.

    Args:
        candidates: Descriptions as produced.
        references: Descriptions as written, one for each candidate.
        corpus: All descriptions, for CIDEr's document frequency.
        with_meteor: METEOR too; a Java program is started for it.

    Raises:
        MissingRequirementError: See `check_requirements`.
    """
    frequency = DocumentFrequency.of(corpus, tokenizer="words")
    figures = {
        "bleu1": bleu1(candidates, references, tokenizer="words").corpus,
        "bleu4": bleu4(candidates, references, tokenizer="words").corpus,
        "cider": cider(candidates, references, tokenizer="words", document_frequency=frequency).corpus,
        "rouge_l": rouge_l(candidates, references, tokenizer="words").corpus,
    }
    return figures | ({METEOR: meteor(candidates, references, tokenizer="words").corpus} if with_meteor else {})
