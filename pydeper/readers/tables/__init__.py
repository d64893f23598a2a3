"""Tables as programs export them."""
