"""The model that `pydeper.describe` and `pydeper.stream` use."""

import threading

from pydeper.bundle.bundle import open_bundle
from pydeper.bundle.default import default_model_name
from pydeper.model.model import DeperModel
from pydeper.persona.encoder import default_encoder
from pydeper.runtime.forks import after_fork_in_child

_default_models: dict[str, DeperModel] = {}
_default_lock = threading.Lock()


def _forget() -> None:
    global _default_lock
    _default_lock = threading.Lock()  # another thread may have held it at the moment of the fork
    _default_models.clear()


after_fork_in_child(_forget)


def default_model() -> DeperModel:
    """Returns the default model, loaded at its first use and kept: ``$PYDEPER_MODEL``, else the built-in "tiny".

    Its persona encoder is the one that `Persona.from_samples` uses where no model is named.

    Raises:
        BundleError: It cannot be found or loaded.
        RuntimeMissingError: ONNX Runtime is not installed, or installed twice.
    """
    name = default_model_name()
    with _default_lock:
        if name not in _default_models:
            model = DeperModel(open_bundle(name), persona_encoder=default_encoder())
            _default_models.clear()
            _default_models[name] = model
        return _default_models[name]
