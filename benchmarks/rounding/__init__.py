"""What rounding a decoder's weights costs a network that has learned something."""
