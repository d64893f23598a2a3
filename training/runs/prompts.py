"""The prompts that DEPER is trained and used with."""

from pydeper.bundle.config import SUBJECT_TOKEN, Prompts, PromptStyle

PROMPTS = Prompts(
    system="You are a helpful assistant.",
    styles={
        "description": PromptStyle(
            with_persona=f"Write a description of this photo in the style of {SUBJECT_TOKEN}",
            without_persona="Write a description of this photo",
        ),
        "caption": PromptStyle(
            with_persona=f"Caption this image in the style of {SUBJECT_TOKEN}",
            without_persona="Caption this image",
        ),
    },
)
