"""The model that `pydeper.describe` and `pydeper.stream` use."""

from pydeper.bundle.bundle import open_bundle
from pydeper.bundle.default import OfDefaultModel
from pydeper.model.model import DeperModel
from pydeper.persona.encoder import default_encoder

_model = OfDefaultModel(lambda name: DeperModel(open_bundle(name), persona_encoder=default_encoder()))


def default_model() -> DeperModel:
    """Returns the default model, loaded at its first use and kept: ``$PYDEPER_MODEL``, else the built-in "tiny".

    Its persona encoder is the one that `Persona.from_samples` uses where no model is named.

    Raises:
        BundleError: It cannot be found or loaded.
        RuntimeMissingError: ONNX Runtime is not installed, or installed twice.
    """
    return _model.get()
