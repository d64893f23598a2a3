"""What holds for every test, and the fixtures that tests of several folders share."""

import torch
from hypothesis import settings

pytest_plugins = [
    "tests.support.small_vlm",
    "tests.support.small_bundle",
    "tests.support.hub_server",
    "tests.support.training_run",
]

torch.set_num_threads(1)

# How long an example takes says something about the machine, not about the code.
settings.register_profile("pydeper", deadline=None)
settings.load_profile("pydeper")
