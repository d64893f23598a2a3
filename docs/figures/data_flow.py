"""Samples become a persona; the persona becomes one soft token in the prompt of a frozen VLM."""

from docs.figures.drawing import Drawing


def draw() -> str:
    """Draws both ways: once per person, and once per image."""
    d = Drawing(
        "How pydeper works",
        "Above, once per person: about five samples, each an image, a description and a trajectory, go through the "
        "persona encoder and are averaged into a persona of 384 numbers. Below, once per image: image and prompt go "
        "into the frozen Qwen2-VL; the adapter turns the persona into one soft token in the prompt; out comes a "
        "description in that person's way.",
        612,
    )
    d.text(20, 30, "Once per person, from about five samples", style="label")
    d.box(20, 48, 136, 128, ["a sample", "image", "description", "trajectory"])
    d.arrow((156, 112), (194, 112))
    d.box(
        196,
        48,
        186,
        128,
        ["persona encoder", "reads all three", "in each other’s light", "→ one z_{s} a sample"],
        kind="learned",
    )
    d.arrow((382, 112), (434, 112))
    d.text(407, 102, "mean", style="small aside", align="middle")
    d.box(436, 72, 104, 80, ["persona", "384", "numbers"], kind="persona")

    d.text(20, 222, "Once per image, on any device, without gaze", style="label")
    d.box(20, 346, 520, 154, kind="frozen")
    d.arrow((488, 152), (488, 246), kind="soft")
    d.box(436, 248, 104, 40, ["adapter"], kind="learned")
    d.arrow((488, 288), (488, 393), kind="soft")
    d.text(476, 322, "one soft token", style="small aside", align="end")

    d.box(20, 248, 136, 44, ["image"])
    d.arrow((88, 292), (88, 393))
    d.text(148, 374, "Qwen2-VL, frozen", style="label on-frozen")
    d.box(34, 396, 108, 46, ["image", "tokens"], label=False)
    d.box(148, 396, 284, 46, ["“Write a description of this", "photo in the style of"], label=False)
    d.box(438, 396, 88, 46, ["<subj>"], kind="learned")
    d.arrow((34, 456), (432, 456), head=False)
    d.text(34, 480, "computed once for everybody’s persona", style="small on-frozen")

    d.arrow((280, 500), (280, 538))
    d.box(130, 540, 300, 52, ["a description", "in that person’s words and order"])
    return d.svg()
