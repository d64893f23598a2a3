"""What happens between a client, the gateway, its store and the vision-language model when an image is described."""

from docs.figures.drawing import Drawing, Kind

# Of the four lifelines: where each is, and its head.
CLIENT, GATEWAY, STORE, MODEL = 68, 214, 354, 490
HEADS: list[tuple[float, str, str, Kind]] = [
    (CLIENT, "client", "with a key", "plain"),
    (GATEWAY, "gateway", "pydeper serve", "learned"),
    (STORE, "store", "SQL", "persona"),
    (MODEL, "VLM", "here, or vLLM", "frozen"),
]
TOP, BOTTOM = 78, 640


def draw() -> str:
    """Draws the messages, from top to bottom."""
    d = Drawing(
        "One description through the gateway",
        "From top to bottom: the client sends an image and the id of a persona. The gateway checks the key in the "
        "store, checks that its queue has room, or else answers with status 429 before it reads the body, receives the "
        "body under limits, and reads the persona from the store. The image is encoded, and the request joins those "
        "that are being computed before their next step, with the persona as one soft token. Pieces of the text go "
        "back to the client as they are written. A client that goes away leaves the batch before the next step.",
        BOTTOM + 20,
    )
    for x, name, what, kind in HEADS:
        d.arrow((x, TOP), (x, BOTTOM), kind="dashed", head=False)
        d.box(x - 64, 14, 128, TOP - 14, [name, what], kind=kind)
    y: float = TOP + 34
    y = message(d, y, CLIENT, GATEWAY, "POST /v1/describe")
    y = message(d, y, GATEWAY, STORE, "whose key is it?")
    y = aside(d, y, GATEWAY, ["is the queue full?", "then 429, Retry-After"])
    y = message(d, y, CLIENT, GATEWAY, "image, persona id")
    y = message(d, y, GATEWAY, STORE, "the persona")
    y = message(d, y, GATEWAY, MODEL, "image + one soft token")
    y = aside(d, y, MODEL, ["joins the others", "at the next step"])
    y = message(d, y, MODEL, GATEWAY, "a token of every row")
    y = message(d, y, GATEWAY, CLIENT, "event: piece")
    y = aside(d, y, GATEWAY, ["client gone, or too late?", "then its row ends"])
    y = message(d, y, MODEL, GATEWAY, "end of the description")
    message(d, y, GATEWAY, CLIENT, "event: done")
    return d.svg()


def message(d: Drawing, y: float, sender: float, receiver: float, text: str) -> float:
    """Draws an arrow from one lifeline to another, its text above; returns where the next one goes."""
    d.text((sender + receiver) / 2, y - 6, text, style="small", align="middle")
    inwards = 4 if receiver > sender else -4
    d.arrow((sender + inwards, y), (receiver - inwards, y))
    return y + 40


def aside(d: Drawing, y: float, at: float, lines: list[str]) -> float:
    """Draws what one of them does by itself; returns where the next message goes."""
    width = 208 if at != MODEL else 140
    d.box(min(at - width / 2, 552 - width), y - 22, width, 50, label=False)
    for number, line in enumerate(lines):
        d.text(min(at, 552 - width / 2), y - 2 + 20 * number, line, style="small on-plain", align="middle")
    return y + 62
