"""What captioners have in common: baselines whose own network writes the texts, without the frozen VLM."""

from collections.abc import Callable, Sequence
from pathlib import Path

import attrs
import torch

from pydeper.readers.utterances import Utterance
from pydeper.samples.sample import Sample
from training.baselines.targets import Person
from training.config import CSMNConfig, MITRConfig
from training.data.image_features import ImageFeatures
from training.data.images import Images
from training.distributed.device import CPU


@attrs.frozen(eq=False)
class CaptionerInputs:
    """What a captioner is made from.

    Attributes:
        people: Their targets are predicted.
        training: Described samples of seen people, also of those without targets.
        validation: Described samples of the same people, to choose a step by; may be empty.
        load_image_features: Loads the frozen image encoder: images -> (G·G, C) tokens of each.
        folder: For what is trained.
        seed: Of weights and batches.
        csmn: Settings of CSMN.
        mitr: Settings of MITR.
        utterances_of: What was said when in a sample's description; nothing where that is not known.
        device: Where networks are trained and write.
    """

    people: Sequence[Person]
    training: Sequence[Sample]
    validation: Sequence[Sample]
    load_image_features: Callable[[Images], ImageFeatures]
    folder: Path
    seed: int = 0
    csmn: CSMNConfig = attrs.Factory(CSMNConfig)
    mitr: MITRConfig = attrs.Factory(MITRConfig)
    utterances_of: Callable[[Sample], Sequence[Utterance]] = lambda _: ()
    device: torch.device = CPU
