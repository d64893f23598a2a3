"""A persona as a list of words: those that one person uses and others do not, by TF-IDF.

The active vocabulary of a user is what CSMN (Park et al., "Attend to You", CVPR 2017) keeps in its memory; here it
stands in the prompt, in the place of `<subj>`.
"""

from collections.abc import Mapping, Sequence

from training.baselines.targets import Person, descriptions
from training.metrics.requirements import MissingRequirementError
from training.vlm.generation import Prompt, SeenImage, image_ids
from training.vlm.steered_vlm import SteeredVLM

WORD = r"\w+(?:['’]\w+)*"
"""A word as a regular expression: letters and digits, apostrophes inside."""


class TextStatistics:
    """Each person's most telling words in the prompt.

    Args:
        vlm: The frozen VLM.
        style: The prompt's style.
        people: Those who are described for; all their known descriptions together are one document of each.
        others: Descriptions by others, one list a person, for the document frequencies.
        words: The most words in a persona.
    """

    def __init__(
        self,
        vlm: SteeredVLM,
        style: str,
        people: Sequence[Person],
        others: Sequence[Sequence[str]] = (),
        words: int = 20,
    ) -> None:
        self.vlm, self._prompt = vlm, vlm.template.with_persona(style)
        documents = [descriptions(person.known) for person in people]
        found = telling_words([*documents, *others], words)
        self.words: Mapping[str, list[str]] = dict(zip((person.name for person in people), found, strict=False))

    def prompt(self, person: Person, image: SeenImage) -> Prompt:
        """See `System`."""
        persona = self.vlm.text_ids(f"somebody who often says: {', '.join(self.words[person.name])}")
        return Prompt([*image_ids(self.vlm, image), *self._prompt.before, *persona, *self._prompt.after], [image])


def telling_words(
    documents: Sequence[Sequence[str]],
    count: int,
    *,
    idf_from: Sequence[Sequence[str]] | None = None,
    sublinear: bool = True,
    vocabulary: Sequence[str] | None = None,
) -> list[list[str]]:
    """The words of the highest TF-IDF (smoothed document frequency) of each document.

    Args:
        documents: n lists of texts; each list is one document.
        count: The most words of a document.
        idf_from: The documents that the document frequencies are of; None: the same documents.
        sublinear: Whether the logarithm of a term's frequency counts, not the frequency itself.
        vocabulary: The words that are looked for, lower-cased; None: all of `idf_from`.

    Returns:
        n lists of lower-cased words, the most telling first, equal ones in the order of the alphabet.

    Raises:
        MissingRequirementError: scikit-learn is not installed.
    """
    try:
        from sklearn.feature_extraction.text import TfidfVectorizer
    except ImportError as error:
        raise MissingRequirementError('TF-IDF needs scikit-learn: pip install -e ".[eval]"') from error
    sought = None if vocabulary is None else sorted(vocabulary)
    model = TfidfVectorizer(sublinear_tf=sublinear, token_pattern=WORD, vocabulary=sought)
    model.fit([" ".join(texts) for texts in (documents if idf_from is None else idf_from)])
    weights = model.transform([" ".join(texts) for texts in documents])
    words = model.get_feature_names_out()  # sorted
    rows = []
    for document in range(len(documents)):
        row = weights[[document]].toarray()[0]
        best = sorted(row.nonzero()[0], key=lambda word: (-row[word], word))
        rows.append([str(words[word]) for word in best[:count]])
    return rows
