"""What a model is loaded from: its bundle, and its vision-language model on this machine or on servers."""

from os import PathLike

import attrs
from tokenizers import Tokenizer

from pydeper.bundle.bundle import Bundle, EncoderBundle, open_bundle, open_bundle_without_vlm
from pydeper.bundle.config import Precision
from pydeper.errors import InvalidArgumentError, VLLMError
from pydeper.runtime.target import Runtime, Target, choose_target
from pydeper.vlm import VisionLanguageModel, open_vlm
from pydeper.vlm.vllm.settings import VLLMServers


def find_bundle(
    name_or_folder: str | PathLike[str] | None,
    revision: str | None,
    local_files_only: bool,
    precision: Precision | None,
    servers: VLLMServers | None,
    runtime: Runtime | None = None,
) -> EncoderBundle:
    """Finds and checks a bundle: a `Bundle` with its vision-language model, unless servers have that.

    The arguments are those of `DeperModel.from_pretrained`.

    Raises:
        BundleError, RuntimeMissingError: See `pydeper.bundle.bundle.open_bundle`.
        InvalidArgumentError: There is no such precision or runtime, or there are servers, which have their precision.
    """
    if servers is None:
        return open_bundle(
            name_or_folder,
            revision=revision,
            local_files_only=local_files_only,
            precision=precision,
            runtime=runtime,
        )
    if precision is not None:
        raise InvalidArgumentError(
            f"precision: is that of files on this machine, and the servers of vlm have theirs; leave it out, "
            f"got {precision!r}"
        )
    return open_bundle_without_vlm(name_or_folder, revision=revision, local_files_only=local_files_only)


def target_of(opened: EncoderBundle, runtime: Runtime | None, device: str, threads: int | None) -> Target:
    """Returns where the graphs of a bundle that `find_bundle` has found run: on the runtime that it was found for.

    Raises:
        InvalidArgumentError: `runtime` is another than that, or there is no such runtime, or `threads` is below 1.
        RuntimeMissingError: The runtime is not installed, or none is.
    """
    if not isinstance(opened, Bundle):
        return choose_target(runtime, device=device, threads=threads)
    if runtime not in (None, opened.target.runtime):
        raise InvalidArgumentError(
            f"runtime: the bundle was opened for {opened.target.runtime!r}, got {runtime!r}; give it to open_bundle too"
        )
    return attrs.evolve(opened.target, device=device, threads=threads)


def load_vlm(
    opened: EncoderBundle, tokenizer: Tokenizer, *, target: Target, servers: VLLMServers | None
) -> VisionLanguageModel:
    """Opens the vision-language model of a bundle that `find_bundle` has found for the same servers, or none.

    Raises:
        BundleError, RuntimeMissingError, InvalidArgumentError: See `pydeper.vlm.open_vlm`.
        VLLMError: The servers cannot be reached, or cannot serve this model.
    """
    config = opened.config
    if servers is None:
        assert isinstance(opened, Bundle)
        return open_vlm(
            opened.vlm_folder,
            config.vlm,
            config.prompts,
            tokenizer,
            runtime=target.runtime,
            device=target.device,
            threads=target.threads,
            precision=opened.precision,
        )
    try:
        from pydeper.vlm.vllm.runtime import VLLMRuntime
    except ModuleNotFoundError as error:
        if error.name != "httpx":
            raise
        raise VLLMError(
            'vlm: vLLM servers are reached by httpx, which is not installed: pip install "pydeper[vllm]"'
        ) from error
    return VLLMRuntime(servers, config.vlm, config.prompts, tokenizer)
