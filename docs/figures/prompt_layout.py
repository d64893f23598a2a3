"""The prompt, piece by piece, and what of it is computed when."""

from docs.figures.drawing import Drawing, Kind

# What stands there, what it becomes, and the kind of box.
_ONCE_PER_IMAGE = [
    ("<|im_start|>system … <|im_end|>", "the system turn"),
    ("<|im_start|>user  <|vision_start|>", ""),
    ("<|image_pad|> × 256", "the image: 256 tokens at 448×448 pixels"),
    ("<|vision_end|> Write a description", "of this photo in the style of"),
]


def draw() -> str:
    """Draws the prompt from top to bottom, with what is kept of it."""
    d = Drawing(
        "The prompt, and what of it is kept",
        "From top to bottom: the system turn, the image as 256 tokens and the words “Write a description of this photo "
        "in the style of” are computed once per image and kept as keys and values, for any number of personas. Then "
        "the soft token in the place of <subj> and the start of the assistant’s turn, computed once per persona. Last "
        "the answer, one token a step. In training the loss is over the answer and its end token alone.",
        556,
    )
    y = 20.0
    for number, (first, second) in enumerate(_ONCE_PER_IMAGE):
        kind: Kind = "frozen" if number == 2 else "plain"
        height = 52 if second else 38
        d.box(20, y, 340, height, [first, second] if second else [first], kind=kind, label=False, align="start")
        y += height + 6
    _bracket(d, 20, y - 6, ["once per image", "keys and values kept:", "an EncodedImage,", "shared by all personas"])

    start = y = y + 16
    d.box(20, y, 340, 56, ["<subj>", "one soft token: adapter(z_{s})"], kind="persona", align="start")
    d.box(20, y + 62, 340, 52, ["<|im_end|>  <|im_start|>assistant", ""], label=False, align="start")
    d.text(32, y + 102, "the assistant’s turn begins", style="small on-plain")
    y += 114
    _bracket(d, start, y, ["once per persona", "one pass, several", "personas at once"])

    start = y = y + 22
    d.box(
        20, y, 340, 84, ["A red bus, then a man who …", "the description", "<|im_end|>"], kind="learned", align="start"
    )
    _bracket(d, start, y + 84, ["one token a step", "in training: L_{des},", "over these alone"])
    d.text(20, y + 116, "Attention is causal: nothing above <subj> can depend on the persona.", style="small aside")
    d.text(20, y + 138, "So the image stands first, and its long part is computed once.", style="small aside")
    return d.svg()


def _bracket(d: Drawing, top: float, bottom: float, lines: list[str]) -> None:
    d.arrow((368, top + 1), (378, top + 1), (378, bottom - 1), (368, bottom - 1), head=False)
    first = (top + bottom) / 2 - 10 * (len(lines) - 1) + 5
    for number, line in enumerate(lines):
        d.text(390, first + 20 * number, line, style="label" if number == 0 else "small aside")
