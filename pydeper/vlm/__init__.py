"""The frozen vision-language model, behind one protocol."""

from pydeper.vlm.decoding import DecodingOptions
from pydeper.vlm.local.runtime import Qwen2VLRuntime, open_vlm
from pydeper.vlm.protocol import EncodedImage, Generation, VisionLanguageModel

__all__ = ["DecodingOptions", "EncodedImage", "Generation", "Qwen2VLRuntime", "VisionLanguageModel", "open_vlm"]
