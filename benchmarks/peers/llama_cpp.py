"""llama.cpp with the stand-in's language model, in its own 4-bit formats. Its image encoder is not run."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

from benchmarks.measuring.timing import seconds, timed
from pydeper.files.atomic import atomic_path

FORMATS = ("Q4_0", "Q4_K_M")
_CONTEXT = 512


class LlamaCpp:
    """A model file that is loaded, and a prompt of random tokens as long as the others' with an image.

    Args:
        file: What `write_model` wrote.
        threads: CPU threads.
        prompt: Tokens in the prompt.
        tokens: How many are written after the first one.
    """

    def __init__(self, file: Path, threads: int, prompt: int, tokens: int) -> None:
        import llama_cpp

        self._api = llama_cpp
        self._prompt = np.random.default_rng(0).integers(0, 1000, prompt).tolist()
        self._tokens = tokens
        llama_cpp.llama_backend_init()
        self._silence = llama_cpp.llama_log_callback(lambda *_: None)  # kept, since C calls it
        llama_cpp.llama_log_set(self._silence, None)
        self._model = llama_cpp.llama_model_load_from_file(str(file).encode(), llama_cpp.llama_model_default_params())
        if not self._model:
            raise RuntimeError(f"{file}: llama.cpp cannot load it")
        settings = llama_cpp.llama_context_default_params()
        settings.n_ctx = settings.n_batch = _CONTEXT
        settings.n_threads = settings.n_threads_batch = threads
        self._context = llama_cpp.llama_init_from_model(self._model, settings)

    def describe(self, _image: Path) -> dict[str, float]:
        """Seconds for the prompt, and tokens a second after it."""
        api = self._api
        api.llama_memory_clear(api.llama_get_memory(self._context), True)
        prompt, chosen = timed(lambda: self._next(self._prompt))
        more = seconds(lambda: self._write(chosen))
        return {"prompt s": prompt, "tokens/s": self._tokens / more}

    def _write(self, chosen: int) -> None:
        for _ in range(self._tokens):
            chosen = self._next([chosen])

    def _next(self, tokens: list[int]) -> int:
        """The most probable token after some more."""
        api = self._api
        row = (api.llama_token * len(tokens))(*tokens)
        if api.llama_decode(self._context, api.llama_batch_get_one(row, len(tokens))) != 0:
            raise RuntimeError("llama.cpp could not compute the tokens")
        scores = api.llama_get_logits_ith(self._context, -1)
        count = api.llama_vocab_n_tokens(api.llama_model_get_vocab(self._model))
        return int(np.ctypeslib.as_array(scores, (count,)).argmax())


def write_model(source: Path, folder: Path, name: str) -> Path:
    """Writes the language model of a Qwen2-VL as a GGUF file of one of `FORMATS`; what is there is kept.

    Args:
        source: The Qwen2-VL, as the Hub has it.
        folder: Where to.
        name: One of `FORMATS`.
    """
    import llama_cpp

    file, whole = folder / f"{name}.gguf", folder / "F16.gguf"
    if file.exists():
        return file
    folder.mkdir(exist_ok=True)
    if not whole.exists():
        with atomic_path(whole) as temporary:
            _write_whole(source, temporary)
    settings = llama_cpp.llama_model_quantize_default_params()
    settings.ftype = getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{name}")
    with atomic_path(file) as temporary:
        if llama_cpp.llama_model_quantize(str(whole).encode(), str(temporary).encode(), settings) != 0:
            raise RuntimeError(f"{whole}: llama.cpp cannot quantise it")
    return file


def _write_whole(source: Path, file: Path) -> None:
    import gguf

    config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    heads, layers = config["num_attention_heads"], config["num_hidden_layers"]
    architecture = gguf.MODEL_ARCH.QWEN2
    writer = gguf.GGUFWriter(file, gguf.MODEL_ARCH_NAMES[architecture])
    writer.add_block_count(layers)
    writer.add_context_length(_CONTEXT)
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_vocab_size(config["vocab_size"])
    writer.add_tokenizer_model("none")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    names = gguf.get_tensor_name_map(architecture, layers)
    for name, weight in _language_model(source):
        # Vectors stay in float32, as llama.cpp has them.
        dtype = np.float32 if weight.ndim == 1 else np.float16
        writer.add_tensor(names.get_name(name, try_suffixes=(".weight", ".bias")), weight.float().numpy().astype(dtype))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _language_model(source: Path) -> Iterator[tuple[str, torch.Tensor]]:
    """Names and weights, without those of the image encoder."""
    for shard in sorted(source.glob("*.safetensors")):
        for name, weight in load_file(shard).items():
            if not name.startswith("visual."):
                yield name, weight
