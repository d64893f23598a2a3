"""The paper's ablations: DEPER without one of its parts. Each is a few settings, the same for every configuration.

`--set` takes the settings one by one; `python -m training table` and `reproduce` take an ablation by its name, such as
`--systems "DEPER, no FiLM"`.
"""

from collections.abc import Mapping
from types import MappingProxyType

import attrs

from training.config import ConfigError


@attrs.frozen
class Ablation:
    """DEPER without one part.

    Attributes:
        settings: What `--set` would be given.
        without: What is missing, as far as the losses and formulas go.
    """

    settings: tuple[str, ...]
    without: str


ABLATIONS: Mapping[str, Ablation] = MappingProxyType(
    {
        "text only": Ablation(
            ("network.trajectory=false", "network.kinematics=false", "stage1.trajectory_weight=0"),
            "T_0 is empty, and there is nothing to reconstruct: L = λ·L_con + L_cls",
        ),
        "no dynamics": Ablation(
            ("network.dynamics=false", "network.kinematics=false"),
            "T_0 says what was seen and where, not when and for how long",
        ),
        "no reconstruction": Ablation(("stage1.trajectory_weight=0",), "L_traj: stage 1 is L = λ·L_con + L_cls"),
        "no dual context": Ablation(("network.dual_context=false",), "L_l and T_l in each other's context"),
        "no trajectory latent": Ablation(("network.trajectory_latent=false",), "z_traj: z_s reconstructs by itself"),
        "no contrast": Ablation(("stage1.contrastive_weight=0", "stage2.contrastive_weight=0"), "L_con, λ = 0"),
        "no FiLM": Ablation(("network.film=false",), "z_s in the decoder's layers: Q ← FFN(Q)"),
    }
)
"""By name, in the order of the paper's table; "no …" is "w/o …" there."""


def settings_of(name: str) -> tuple[str, ...]:
    """The settings of an ablation.

    Raises:
        ConfigError: There is no such ablation; names those there are.
    """
    if name not in ABLATIONS:
        raise ConfigError(f"there is no ablation {name!r}; there are: {', '.join(map(repr, ABLATIONS))}")
    return ABLATIONS[name].settings
