"""The sizes of the network; the defaults are those of the paper."""

import attrs


def _size(instance: object, attribute: "attrs.Attribute[int]", value: object) -> None:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"NetworkConfig.{attribute.name} is {value!r}; it must be an int")
    if value < 1:
        raise ValueError(f"NetworkConfig.{attribute.name} is {value}; it must be at least 1")


@attrs.frozen
class NetworkConfig:
    """Sizes of the persona encoder and the trajectory decoder.

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

    Raises:
        ValueError: A size is below 1, does not divide as it must, or the dropout is outside [0, 1).
        TypeError: A size is not an int.
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

    def __attrs_post_init__(self) -> None:
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"NetworkConfig.dropout is {self.dropout}; it must lie in [0, 1)")
        # Where a box is takes half of D for x and half for y, each in pairs of sine and cosine.
        for divisor in (4, self.num_heads):
            if self.hidden_size % divisor:
                raise ValueError(f"NetworkConfig.hidden_size is {self.hidden_size}; it must be a multiple of {divisor}")
