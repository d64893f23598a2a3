"""What the paper holds DEPER against: other ways to make the same frozen VLM describe as one person would.

All of them see the same samples of a person, predict the same targets, and are decoded and scored in the same way.
"""
