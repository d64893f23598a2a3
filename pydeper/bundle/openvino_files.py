"""What Optimum calls the files of a Qwen2-VL for OpenVINO, and where they lie in a VLM's folder.

`optimum-cli export openvino --task image-text-to-text` writes four graphs, each an `.xml` file with its weights in the
`.bin` file beside it. Their names are the same in every precision. So a VLM's folder may be such a folder, in one
precision that the names do not say; or it has subfolders `openvino_fp32`, `openvino_fp16`, `openvino_int8` and
`openvino_int4`, each of them such a folder.
"""

from collections.abc import Collection
from typing import get_args

from pydeper.bundle.config import Precision

LANGUAGE_MODEL = "openvino_language_model.xml"
TEXT_EMBEDDINGS = "openvino_text_embeddings_model.xml"
VISION_EMBEDDINGS = "openvino_vision_embeddings_model.xml"
VISION_MERGER = "openvino_vision_embeddings_merger_model.xml"
GRAPHS = (LANGUAGE_MODEL, TEXT_EMBEDDINGS, VISION_EMBEDDINGS, VISION_MERGER)


def weights_of(graph: str) -> str:
    """Returns the name of the file with a graph's weights."""
    return graph.removesuffix(".xml") + ".bin"


def openvino_folder(precision: Precision) -> str:
    """Returns the name of the subfolder for the files of one precision."""
    return f"openvino_{precision}"


FOLDERS: tuple[str, ...] = tuple(openvino_folder(precision) for precision in get_args(Precision))
"""All such subfolders."""


def named_precisions(names: Collection[str]) -> list[Precision]:
    """Returns the precisions that a listing of a folder has a subfolder with a language model for."""
    return [precision for precision in get_args(Precision) if f"{openvino_folder(precision)}/{LANGUAGE_MODEL}" in names]


def place_of(names: Collection[str], precision: Precision) -> str | None:
    """Returns where the files for a precision lie: ``"openvino_int4/"``, else ``""`` for the folder itself, else None.

    The folder itself is taken for any precision: its weights say which it has once they are opened.
    """
    places = (f"{openvino_folder(precision)}/", "")
    return next((place for place in places if place + LANGUAGE_MODEL in names), None)
