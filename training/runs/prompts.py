"""The prompts that DEPER is trained and used with."""

from pydeper.bundle.config import SUBJECT_TOKEN, Prompts, PromptStyle
from training.config import TrainingConfig

_STYLES = {
    "description": PromptStyle(
        with_persona=f"Write a description of this photo in the style of {SUBJECT_TOKEN}",
        without_persona="Write a description of this photo",
    ),
    "caption": PromptStyle(
        with_persona=f"Caption this image in the style of {SUBJECT_TOKEN}",
        without_persona="Caption this image",
    ),
}


def prompts_of(config: TrainingConfig) -> Prompts:
    """The two styles of the paper, behind the system prompt that the configuration has."""
    return Prompts(system=config.system_prompt, styles=_STYLES)
