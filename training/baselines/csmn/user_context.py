"""What CSMN knows of a person: the words of the highest TF-IDF in their own texts, the most telling first."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from training.baselines.text_statistics import telling_words
from training.baselines.word_vocabulary import PAD, STOP, Vocabulary


def user_contexts(
    texts: Mapping[str, Sequence[str]], seen: Sequence[Sequence[str]], vocabulary: Vocabulary, size: int
) -> Tensor:
    """Everybody's user context.

    The order counts, because the network reads neighbouring words together.

    Args:
        texts: Person -> their known texts, which are all that is read of them.
        seen: The texts of each seen person, for the document frequencies; a person among them or not.
        vocabulary: Other words are left out.
        size: The most words of a person.

    Returns:
        (people, size) numbers of words, `PAD` behind the last word of a person who has fewer.

    Raises:
        MissingRequirementError: scikit-learn is not installed.
    """
    words = [word for word in vocabulary.words if word != STOP]
    found = telling_words(list(texts.values()), size, idf_from=seen, sublinear=False, vocabulary=words)
    contexts = torch.full((len(found), size), PAD)
    for context, own in zip(contexts, found, strict=True):
        context[: len(own)] = torch.tensor(vocabulary.encode_words(own), dtype=torch.long)
    return contexts
