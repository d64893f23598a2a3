"""The sizes of the network, and which of its parts are there; the defaults are those of the paper."""

from typing import get_args

import attrs

from training.network.fixations.box_pooling import BoxPooling


def _size(instance: object, attribute: "attrs.Attribute[int]", value: object) -> None:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"NetworkConfig.{attribute.name} is {value!r}; it must be an int")
    if value < 1:
        raise ValueError(f"NetworkConfig.{attribute.name} is {value}; it must be at least 1")


def _switch(instance: object, attribute: "attrs.Attribute[bool]", value: object) -> None:
    if not isinstance(value, bool):
        raise TypeError(f"NetworkConfig.{attribute.name} is {value!r}; it must be true or false")


@attrs.frozen
class NetworkConfig:
    """Sizes of the persona encoder and the trajectory decoder, and a switch for each part that the paper ablates.

    Attributes:
        hidden_size: D, the width of every stream and of the feed-forward blocks; a multiple of 4 and of `num_heads`.
        subject_embedding_size: The numbers in z_s.
        num_heads: Attention heads.
        encoder_layers: Layers of the dual-context encoder.
        decoder_layers: Layers of the trajectory decoder.
        dropout: Dropout probability in [0, 1), after every block and on attention weights.
        max_fixations: M, the trajectory decoder's box queries.
        image_channels: C, the width of the frozen image encoder's tokens.
        text_channels: E, the width of the frozen text table.
        grid_size: G; an image is G×G tokens, row by row.
        trajectory: Trajectories are read. False: T_0 is empty for every sample, whatever it holds.
        dynamics: A fixation says when it was and how long it took. False: T_0 keeps only what was seen and where, so
            the fixations are a set.
        dual_context: The streams read each other. False: each layer is FFN(Cross(Self(x), V)) in either stream, and
            they meet in Z_dual alone.
        trajectory_latent: The trajectory decoder has z_traj, a latent of the one image. False: a linear map of z_s
            takes the place of z_traj, so z_s alone has to reconstruct.
        film: z_s modulates the trajectory decoder. False: Q ← FFN(Q), so the decoder sees z_s only in place of z_traj,
            if at all.
        kinematics: Fixations and scanpaths are described by the numbers that a classical classifier of gaze
            reads, in each fixation's token in place of the sinusoids, and in one more token for the scanpath; see
            `training.network.fixations.kinematics`. False, as in the paper, which has none.
        word_order: Weight, at least 0, of the sinusoidal encoding of a word's place in the description, added to its
            token. 0, as in the paper, which names no such encoding: a description is a bag of words.
        box_pooling: Which cells of the image's grid a fixation's box takes in: "overlap", all that it overlaps, as in
            the released code; "centre", those whose centre lies in it.

    Raises:
        ValueError: A size is below 1, does not divide as it must, the dropout is outside [0, 1), there is no such
            pooling, or kinematics would say what is switched off.
        TypeError: A size is not an int, or a switch not a bool.
    """

    hidden_size: int = attrs.field(default=384, validator=_size)
    subject_embedding_size: int = attrs.field(default=384, validator=_size)
    num_heads: int = attrs.field(default=4, validator=_size)
    encoder_layers: int = attrs.field(default=2, validator=_size)
    decoder_layers: int = attrs.field(default=4, validator=_size)
    dropout: float = attrs.field(default=0.1, converter=float)
    max_fixations: int = attrs.field(default=30, validator=_size)
    image_channels: int = attrs.field(default=768, validator=_size)
    text_channels: int = attrs.field(default=1536, validator=_size)
    grid_size: int = attrs.field(default=14, validator=_size)
    trajectory: bool = attrs.field(default=True, validator=_switch)
    dynamics: bool = attrs.field(default=True, validator=_switch)
    dual_context: bool = attrs.field(default=True, validator=_switch)
    trajectory_latent: bool = attrs.field(default=True, validator=_switch)
    film: bool = attrs.field(default=True, validator=_switch)
    kinematics: bool = attrs.field(default=False, validator=_switch)
    word_order: float = attrs.field(default=0.0, converter=float)
    box_pooling: BoxPooling = "overlap"

    def __attrs_post_init__(self) -> None:
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"NetworkConfig.dropout is {self.dropout}; it must lie in [0, 1)")
        if self.box_pooling not in get_args(BoxPooling):
            choices = " or ".join(map(repr, get_args(BoxPooling)))
            raise ValueError(f"NetworkConfig.box_pooling is {self.box_pooling!r}; it must be {choices}")
        if self.kinematics and not (self.trajectory and self.dynamics):
            raise ValueError(
                "NetworkConfig.kinematics is true: kinematics say where, when and how long, so they need "
                "trajectory = true and dynamics = true"
            )
        if not 0.0 <= self.word_order < float("inf"):
            raise ValueError(f"NetworkConfig.word_order is {self.word_order}; it must be a number, at least 0")
        # Where a box is takes half of D for x and half for y, each in pairs of sine and cosine.
        for divisor in (4, self.num_heads):
            if self.hidden_size % divisor:
                raise ValueError(f"NetworkConfig.hidden_size is {self.hidden_size}; it must be a multiple of {divisor}")
