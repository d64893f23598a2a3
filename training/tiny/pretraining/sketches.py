"""The last training of the vision tower: to see a sketched drawing as it sees the same drawing evenly filled.

The tower is its own teacher (feature distillation, cf. Romero et al. 2015, "FitNets"). So what reads its tokens, above
all the language side, learns from even drawings alone and can describe sketches.
"""

import copy
from typing import Any

import attrs
import torch
from torch import Tensor, nn

from training.precision import bfloat16_autocast
from training.seeding import step_generator
from training.tiny.pretraining.vision import Preprocess, tower_tokens, whole_scene
from training.tiny.world.sampling import sample_canvas, sample_scene

_OUTLINED = 0.1  # of a sketched scene's objects; these have no fill, so they are drawn as they were


@attrs.define(eq=False)
class SketchTask:
    """Trains a vision tower to give the tokens that it gave before, half of the time for sketched scenes.

    Scenes are drawn for every step. The other half is of evenly filled ones, which the tower must not forget.

    Attributes:
        tower: transformers' module.
        preprocess: Draws scenes of one canvas as the tower's input.
        batch_size: Scenes in a step.
        seed: Seed of all scenes.
        learning_rate: Peak rate of AdamW.
        bfloat16: Whether matrices are multiplied in bfloat16.
    """

    name = "sketches"

    tower: nn.Module
    preprocess: Preprocess
    batch_size: int
    seed: int
    learning_rate: float
    bfloat16: bool = False
    state: nn.ModuleDict = attrs.field(init=False)
    _teacher: nn.Module = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._teacher = copy.deepcopy(self.tower).requires_grad_(False)
        self.state = nn.ModuleDict({"encoder": self.tower})

    def parameter_groups(self) -> list[dict[str, Any]]:
        """See `training.loop.train.Task`."""
        return [{"params": list(self.tower.parameters()), "lr": self.learning_rate}]

    def losses(self, step: int, micro_batch: int) -> dict[str, Tensor]:
        """See `training.loop.train.Task`: squared errors of tokens, as shares of the tokens' variance."""
        rng = step_generator(self.seed, step, micro_batch)
        canvas, half = sample_canvas(rng), self.batch_size // 2
        layouts = [whole_scene(rng) for _ in range(self.batch_size)]
        layouts[:half] = [attrs.evolve(layout, outlined=_OUTLINED) for layout in layouts[:half]]
        scenes = [sample_scene(rng, layout, canvas) for layout in layouts]
        even, grid = self.preprocess(scenes, canvas, False)
        sketched, _ = self.preprocess([attrs.evolve(scene, sketched=True) for scene in scenes[:half]], canvas, False)
        with bfloat16_autocast(even.device, wanted=self.bfloat16):
            with torch.no_grad():
                expected = tower_tokens(self._teacher, even, grid)[0].float()
            tokens = tower_tokens(self.tower, torch.cat([sketched, even[half:]]), grid)[0].float()
        errors = (tokens - expected).square().mean(dim=(1, 2)) / expected.var()
        parts = {"sketched": errors[:half].detach().mean(), "even": errors[half:].detach().mean()}
        return {"loss": errors.mean()} | parts
