"""Pre-training of the tiny frozen parts on drawn scenes: the VLM's vision tower, its language side, the image encoder.

The VLM is given what a real Qwen2-VL brings along: it knows what is in a picture, it can describe it in any manner that
words ask for, and it takes an embedding in a prompt for what it means.
"""
