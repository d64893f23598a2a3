"""Which step's weights are kept: caption metrics of descriptions produced on the validation split."""

from collections.abc import Sequence

from training.evaluation.captions import DocumentFrequency, bleu4, cider, rouge_l


def caption_figures(candidates: Sequence[str], references: Sequence[str], corpus: Sequence[str]) -> dict[str, float]:
    """BLEU-4, CIDEr and ROUGE-L of produced descriptions, each against that person's own.

    They are for choosing among the steps of one run, with plain words as tokens: no figures to report.

    Args:
        candidates: Descriptions as produced.
        references: Descriptions as written, one for each candidate.
        corpus: All descriptions, for CIDEr's document frequency.
    """
    frequency = DocumentFrequency.of(corpus, tokenizer="words")
    return {
        "bleu4": bleu4(candidates, references, tokenizer="words").corpus,
        "cider": cider(candidates, references, tokenizer="words", document_frequency=frequency).corpus,
        "rouge_l": rouge_l(candidates, references, tokenizer="words").corpus,
    }
