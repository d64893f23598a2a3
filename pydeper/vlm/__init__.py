"""The frozen vision-language model, behind one protocol."""

from pydeper.vlm.decoding import DecodingOptions
from pydeper.vlm.protocol import EncodedImage, Generation, VisionLanguageModel
from pydeper.vlm.qwen2_vl import Qwen2VLRuntime, open_vlm

__all__ = ["DecodingOptions", "EncodedImage", "Generation", "Qwen2VLRuntime", "VisionLanguageModel", "open_vlm"]
