"""What a vLLM server does with a chat completion, done by a local runtime: the prompt, checked, and the tokens."""

import base64
import io
import threading
from typing import Any

import attrs
import torch
from PIL import Image

from pydeper.bundle.bundle import open_bundle
from pydeper.bundle.tokenizer import open_tokenizer
from pydeper.vlm import DecodingOptions, Qwen2VLRuntime, open_vlm

_SLOT = "<subj>"  # vLLM has a placeholder token of its own here


class RefusedError(Exception):
    """The server refuses the request."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@attrs.frozen
class Completion:
    """The tokens of prompt and description; those end with the end token where the model ended it."""

    prompt_ids: list[int]
    token_ids: list[int]
    finish_reason: str


class Engine:
    """The frozen model of the built-in bundle, as a server has it: without personas, adapter and prompts of the bundle.

    Attributes:
        base_model: What the model is called.
        enable_prompt_embeds: The flag of that name.
        hidden_size: Of the model.
        opening: What the chat template puts before everything.
    """

    def __init__(self) -> None:
        opened = open_bundle("tiny")
        self.base_model = opened.config.vlm.base_model
        self.enable_prompt_embeds = True
        self.hidden_size = opened.config.vlm.hidden_size
        self.opening = ""
        self._tokenizer = open_tokenizer(opened.folder / "tokenizer.json")
        self._prompts = opened.config.prompts
        vlm = open_vlm(opened.vlm_folder, opened.config.vlm, opened.config.prompts, self._tokenizer, threads=1)
        assert isinstance(vlm, Qwen2VLRuntime)
        self._vlm = vlm
        self._special = open_tokenizer(opened.folder / "tokenizer.json")
        self._special.encode_special_tokens = False  # a rendered template is read with its special tokens
        self._lock = threading.Lock()

    def complete(self, body: dict[str, Any]) -> Completion:
        """Describes as a request says.

        Raises:
            RefusedError: With the words of vLLM.
        """
        assert body["stream"] is True
        assert body["return_token_ids"] is True
        config = self._vlm.config
        assert {int(token) for token in body["logit_bias"]} == {*config.tokens.suppressed}
        assert body["repetition_penalty"] == 1
        system, user = body["messages"]
        image, soft_token, text = self._read(user["content"])
        with self._lock:
            encoded = self._vlm.encode_image(image)
            chat = (
                f"{self.opening}<|im_start|>system\n{system['content']}<|im_end|>\n<|im_start|>user\n<|vision_start|>"
                f"{'<|image_pad|>' * encoded.image_tokens}<|vision_end|>{text}<|im_end|>\n<|im_start|>assistant\n"
            )
            prompt_ids = self._special.encode(chat, add_special_tokens=False).ids
            (style,) = (name for name, style in self._prompts.styles.items() if text in attrs.astuple(style))
            options = DecodingOptions(
                max_new_tokens=body["max_tokens"],
                temperature=body["temperature"],
                top_p=body["top_p"],
                seed=body.get("seed"),
            )
            (found,) = self._vlm.generate(encoded, style, soft_token, options)
        end = [config.tokens.end[0]] if found.finish_reason == "stop" else []
        return Completion(prompt_ids, [*found.token_ids, *end], found.finish_reason)

    def _read(self, parts: list[dict[str, Any]]) -> tuple[Image.Image, Any, str]:
        """The image, the soft token (1, hidden) or None, and the text with a slot where the soft token is."""
        image, soft_token, text = None, None, ""
        for part in parts:
            if part["type"] == "image_url":
                scheme, _, data = part["image_url"]["url"].partition(",")
                assert (scheme, image, text) == ("data:image/png;base64", None, "")
                image = Image.open(io.BytesIO(base64.b64decode(data, validate=True)))
                assert image.mode == "RGB"
            elif part["type"] == "text":
                text += part["text"]
            else:
                assert part["type"] == "prompt_embeds"
                soft_token = self._embeds(base64.b64decode(part["data"], validate=True))
                text += _SLOT
        assert image is not None
        return image, soft_token, text

    def _embeds(self, data: bytes) -> Any:
        if not self.enable_prompt_embeds:
            raise RefusedError(400, "You must set `--enable-prompt-embeds` to input `prompt_embeds`")
        tensor = torch.load(io.BytesIO(data), weights_only=True)
        assert tensor.shape[0] == 1
        if tensor.shape[1] != self.hidden_size:
            raise RefusedError(
                400,
                f"`prompt_embeds` hidden_size {tensor.shape[1]} does not match the model's hidden_size "
                f"{self.hidden_size}. (parameter=prompt_embeds)",
            )
        return tensor.numpy()
