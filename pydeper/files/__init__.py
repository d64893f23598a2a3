"""Files on the disk: such as appear whole or not at all, and such as only grow."""
