"""The parts of a model, opened and put together, and what can be told of them."""

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from pydeper.bundle.bundle import Bundle, EncoderBundle
from pydeper.bundle.reopen import Reopenable
from pydeper.model.adapter import Adapter
from pydeper.model.batch import check_persona
from pydeper.model.image_cache import ImageCache
from pydeper.model.loading import load_vlm, target_of
from pydeper.model.options import DescribeOptions, split_options
from pydeper.model.report import ModelReport, report_of
from pydeper.persona.encoder import PersonaEncoder, short_fingerprint
from pydeper.persona.persona import Persona
from pydeper.runtime.target import Runtime
from pydeper.vlm import EncodedImage
from pydeper.vlm.decoding import DecodingOptions
from pydeper.vlm.vllm.settings import VLLMServers


class ModelParts(Reopenable):
    """The persona encoder, the adapter and the vision-language model of a bundle; `DeperModel` describes with them."""

    def __init__(
        self,
        opened: EncoderBundle,
        *,
        device: str = "auto",
        threads: int | None = None,
        image_cache: int = 4,
        persona_encoder: PersonaEncoder | None = None,
        vlm: VLLMServers | None = None,
        runtime: Runtime | None = None,
    ) -> None:
        """Loads a bundle that `pydeper.model.loading.find_bundle` has found and checked; see `from_pretrained`.

        A persona encoder that is open already is used where it is of the same bundle, on the same runtime.
        """
        self._target = target_of(opened, runtime, device, threads)
        self._images: ImageCache[EncodedImage] = ImageCache(image_cache)
        self.config: Final = opened.config
        self.model_id: Final = opened.model_id
        self.revision: Final = opened.revision
        self._folder = opened.folder
        where = {"precision": opened.precision} if isinstance(opened, Bundle) else {"vlm": vlm}
        self._remember(opened, device=device, threads=threads, image_cache=image_cache, runtime=runtime, **where)
        wanted = (opened.folder, self._target.runtime)
        if persona_encoder is None or (persona_encoder.bundle.folder, persona_encoder.runtime) != wanted:
            # Where the VLM's files decided for a runtime, the encoder by itself might take another.
            persona_encoder = PersonaEncoder(opened, device=device, threads=threads, runtime=self._target.runtime)
        self.persona_encoder: Final = persona_encoder
        self._adapter = Adapter(opened, self._target)
        self._vlm = load_vlm(opened, persona_encoder.tokenizer, target=self._target, servers=vlm)

    @property
    def providers(self) -> list[str]:
        """ONNX Runtime's execution providers, or OpenVINO's devices, in use, the preferred one first.

        Examples:
            >>> from pydeper import DeperModel
            >>> DeperModel.from_pretrained("tiny", device="cpu").providers
            ['CPUExecutionProvider']
        """
        return self.persona_encoder.providers

    @property
    def rows_at_once(self) -> int:
        """The most descriptions that are worth computing together.

        Examples:
            >>> from pydeper import DeperModel
            >>> DeperModel.from_pretrained("tiny").rows_at_once
            8
        """
        return self._vlm.rows_at_once

    @property
    def styles(self) -> list[str]:
        """The styles that `describe` takes.

        Examples:
            >>> from pydeper import DeperModel
            >>> DeperModel.from_pretrained("tiny").styles
            ['description']
        """
        return list(self.config.prompts.styles)

    def report(self) -> ModelReport:
        """Tells what the model is and how it runs: device and why, precision, files, sizes, settings; prints well.

        Examples:
            >>> from pydeper import DeperModel
            >>> print(DeperModel.from_pretrained("tiny").report())
            model:               tiny
            base model:          tiny (drawn scenes only)
            device:              auto -> ...
            ...
            pydeper:             ...
        """
        return report_of(
            self.config,
            model_id=self.model_id,
            revision=self.revision,
            target=self._target,
            providers=self.providers,
            vlm=self._vlm.report(),
            images=self._images,
        )

    def check_persona(self, persona: Persona) -> None:
        """Refuses what is no persona, and one that another persona encoder made (`IncompatiblePersonaError`).

        Examples:
            >>> import attrs
            >>> from pydeper import DeperModel, Persona, demo_samples
            >>> model = DeperModel.from_pretrained("tiny")
            >>> ana = Persona.from_samples(demo_samples("ana"), model=model)
            >>> model.check_persona(ana)
            >>> model.check_persona(attrs.evolve(ana, encoder_fingerprint="another"))
            Traceback (most recent call last):
                ...
            pydeper.errors.IncompatiblePersonaError: persona 'ana' was made by the persona encoder 'another' ...
        """
        check_persona(persona, self.persona_encoder)

    def __repr__(self) -> str:
        revision = f"@{self.revision[:12]}" if self.revision else ""
        encoder = self.config.persona_encoder
        return (
            f"{type(self).__name__}({self.model_id + revision!r}, vlm={self.config.vlm.base_model!r}, "
            f"encoder={short_fingerprint(encoder.fingerprint)!r}, styles={self.styles}, "
            f"provider={self.providers[0]!r})"
        )

    def _asked(self, options: DescribeOptions) -> tuple[str, DecodingOptions]:
        """Returns the style and how to decode, both of which this model knows."""
        style, decoding = split_options(options, self.styles, self.model_id)
        self._vlm.check_options(decoding)
        return style, decoding

    def _soft_token(self, persona: Persona | None) -> npt.NDArray[np.float32] | None:
        return None if persona is None else self._soft_tokens([persona])[0]

    def _soft_tokens(self, personas: Sequence[Persona]) -> npt.NDArray[np.float32]:
        """Returns (B, hidden): the adapter's soft token of every persona."""
        for persona in personas:
            self.check_persona(persona)
        return self._adapter([persona.subject_embedding for persona in personas])
