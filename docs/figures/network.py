"""The network of DEPER: each module with its equation and its file."""

from docs.figures.drawing import Drawing


def draw() -> str:
    """Draws the network from its inputs down to its losses, and what each stage trains."""
    d = Drawing(
        "The network of DEPER",
        "Image, trajectory and description become image tokens V, trajectory tokens T_0 and text tokens L_0. Two "
        "layers of the dual-context encoder let the trajectory stream attend to image and text, and the text stream "
        "to image and trajectory. From Z_dual a learned query reads the subject embedding z_s, and another one the "
        "trajectory latent z_traj. A subject head classifies z_s; a decoder of four layers, modulated by z_s, "
        "reconstructs the trajectory; the adapter turns z_s into the soft token of the frozen VLM. Stage 1 trains "
        "all that is learned but the adapter, stage 2 the extractor, its head and the adapter. Each module is "
        "labelled with its file.",
        1196,
    )
    _inputs(d)
    _encoder(d)
    _extractor(d)
    _decoder(d)
    _stages(d)
    return d.svg()


def _inputs(d: Drawing) -> None:
    for x, name in ((20, "trajectory T"), (200, "image I"), (380, "description D")):
        d.box(x, 16, 160, 36, [name])
        d.arrow((x + 80, 52), (x + 80, 72))
    d.box(20, 74, 160, 110, ["fixation tokens", "under each box", "+ where + when", "+ how long"], kind="learned")
    d.box(200, 74, 160, 110, ["DINOv3", "ConvNeXt-Tiny", "14×14 tokens", "of 768 numbers"], kind="frozen")
    d.box(380, 74, 160, 110, ["text table", "the VLM’s input", "embeddings,", "1536 numbers"], kind="frozen")
    d.arrow((200, 148), (182, 148))
    files = (("box_pooling.py", "positions.py"), ("image_encoder.py", ""), ("text_table.py", ""))
    for x, names in zip((100, 280, 460), files, strict=True):
        for row, name in enumerate(names):
            d.text(x, 204 + 20 * row, name, style="small aside", align="middle")
    for x, name in ((100, "T_{0}"), (280, "V"), (460, "L_{0}")):
        d.arrow((x, 232), (x, 262))
        d.text(x + 10, 252, name, style="label")


def _encoder(d: Drawing) -> None:
    d.box(20, 264, 520, 138, kind="learned")
    d.text(36, 290, "dual-context encoder, 2 layers", style="label on-learned")
    d.text(524, 290, "dual_context.py", style="small on-learned", align="end")
    d.text(36, 322, "T_{l+1} = FFN( Cross( Self(T_{l}), [V; L_{l}] ) )", style="on-learned")
    d.text(36, 352, "L_{l+1} = FFN( Cross( Self(L_{l}), [V; T_{l}] ) )", style="on-learned")
    d.text(36, 384, "Each stream sees the other as it was before the layer.", style="small on-learned")
    d.arrow((280, 402), (280, 442), head=False)
    d.text(292, 428, "Z_{dual} = [L'; T']", style="label")


def _extractor(d: Drawing) -> None:
    d.arrow((280, 444), (130, 444), (130, 468))
    d.box(20, 470, 220, 92, ["subject extractor", "query q_{s} → Cross →", "LN–Linear–GELU–Linear"], kind="learned")
    d.text(130, 580, "subject_extractor.py", style="small aside", align="middle")
    d.arrow((165, 590), (165, 614))
    d.box(90, 616, 150, 44, ["z_{s}: 384"], kind="persona")
    d.arrow((90, 638), (76, 638))
    d.box(20, 616, 56, 44, ["L_{con}"], kind="loss")
    d.arrow((108, 660), (108, 704))
    d.box(20, 706, 106, 62, ["subject", "head"], kind="learned")
    d.arrow((73, 768), (73, 806))
    d.box(20, 808, 106, 44, ["L_{cls}"], kind="loss")
    d.arrow((187, 660), (187, 704))
    d.box(134, 706, 106, 62, ["adapter", "384→1536"], kind="learned")
    d.arrow((187, 768), (187, 806), kind="soft")
    d.box(134, 808, 106, 62, ["VLM", "<subj>"], kind="frozen")
    d.arrow((187, 870), (187, 894))
    d.box(134, 896, 106, 40, ["L_{des}"], kind="loss")
    d.text(20, 878, "losses/", style="small aside")
    d.text(20, 958, "adapter.py · vlm/", style="small aside")


def _decoder(d: Drawing) -> None:
    d.arrow((280, 444), (410, 444), (410, 468))
    d.box(280, 470, 260, 92, ["trajectory latent", "query q_{traj} → Cross →", "LN–Linear–GELU–Linear"], kind="learned")
    d.arrow((410, 562), (410, 614))
    d.text(422, 594, "z_{traj}, 30 queries", style="small aside")
    d.box(280, 616, 260, 152, kind="learned")
    d.text(294, 642, "trajectory decoder × 4", style="label on-learned")
    d.text(294, 672, "Q ← Cross( Self(Q), z_{traj} )", style="on-learned")
    d.text(294, 698, "Q ← Cross( Q, [V; L_{0}] )", style="on-learned")
    d.text(294, 724, "Q ← FFN( FiLM(Q, z_{s}) )", style="on-learned")
    d.text(294, 754, "trajectory_decoder.py", style="small on-learned")
    d.arrow((240, 638), (278, 638), kind="soft")
    d.arrow((410, 768), (410, 806))
    d.box(280, 808, 260, 62, ["boxes and validity", "4 corners, 1 logit a slot"])
    d.arrow((410, 870), (410, 894))
    d.box(300, 896, 220, 40, ["L_{traj} = L_{box} + L_{valid}"], kind="loss")
    d.text(410, 958, "training only", style="small aside", align="middle")


def _stages(d: Drawing) -> None:
    d.arrow((20, 978), (540, 978), head=False, kind="dashed")
    d.text(20, 1008, "Stage 1", style="label")
    d.text(110, 1008, "L = λ·L_{con} + L_{traj} + L_{cls},  λ = 0.1")
    d.text(110, 1032, "trains all that is learned but the adapter", style="small aside")
    d.text(20, 1064, "Stage 2", style="label")
    d.text(110, 1064, "L = L_{des} + λ·L_{con} + L_{cls}")
    d.text(110, 1088, "trains extractor, head and adapter;", style="small aside")
    d.text(110, 1108, "L_{des} is for another sample of the same person", style="small aside")
    d.box(20, 1130, 120, 36, ["frozen"], kind="frozen", label=False)
    d.box(150, 1130, 120, 36, ["learned"], kind="learned", label=False)
    d.box(280, 1130, 120, 36, ["loss"], kind="loss", label=False)
    d.text(540, 1186, "files of training/ and training/network/", style="small aside", align="end")
