"""The training loop: resuming, checkpoints, logs; and configurations."""

import json
from pathlib import Path
from typing import Any

import attrs
import pytest
import torch
from torch import Tensor, nn

from training import loop
from training.config import ConfigError, OptimisationConfig, Stage1Config, load_config
from training.tiny.config import TinyConfig

CONFIGS = Path(__file__).parent.parent / "training" / "configs"


class Regression:
    """A small noisy task with dropout, so that resuming is only exact when all randomness is."""

    name = "regression"

    def __init__(self, seed: int = 0) -> None:
        torch.manual_seed(seed)
        self.state = nn.Sequential(nn.Linear(4, 16), nn.Dropout(0.3), nn.Linear(16, 1))
        self.stop_at: int | None = None
        self.broken_at: int | None = None

    def parameter_groups(self) -> list[dict[str, Any]]:
        return [{"params": list(self.state.parameters()), "lr": 1e-2}]

    def losses(self, step: int, part: int) -> dict[str, Tensor]:
        if step == self.stop_at:
            raise KeyboardInterrupt
        rng = loop.step_generator(5, step, part)
        x = torch.from_numpy(rng.normal(size=(8, 4))).float()
        loss = (self.state(x) - x.sum(-1, keepdim=True)).square().mean()
        return {"loss": loss * float("nan") if step == self.broken_at else loss}


def log_of(folder: Path) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (folder / loop.LOG).read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]


CONFIG = OptimisationConfig(steps=12, accumulation=2, checkpoint_every=4, log_every=1)


@pytest.mark.parametrize("stop", [1, 4, 5, 11])
def test_an_interrupted_run_goes_on_exactly(tmp_path, stop):
    whole = Regression()
    loop.run(whole, CONFIG, 0, tmp_path / "whole")
    first = Regression()
    first.stop_at = stop
    with pytest.raises(KeyboardInterrupt):
        loop.run(first, CONFIG, 0, tmp_path / "parts")
    second = Regression(seed=99)  # other weights: all that counts must come from the checkpoint
    if stop >= CONFIG.checkpoint_every:
        loop.run(second, CONFIG, 0, tmp_path / "parts")
        assert log_of(tmp_path / "parts") == log_of(tmp_path / "whole")
        for one, other in zip(whole.state.parameters(), second.state.parameters(), strict=True):
            assert torch.equal(one, other)
    else:
        assert not (tmp_path / "parts" / loop.CHECKPOINT).exists()


def test_a_finished_run_is_not_run_again(tmp_path):
    task = Regression()
    loop.run(task, CONFIG, 0, tmp_path)
    assert loop.is_finished(tmp_path, CONFIG.steps)
    assert not loop.is_finished(tmp_path, CONFIG.steps + 1)
    again = Regression(seed=1)
    again.stop_at = 0
    loop.run(again, CONFIG, 0, tmp_path)
    assert len(log_of(tmp_path)) == CONFIG.steps
    assert torch.equal(task.state[0].weight, again.state[0].weight)


def test_training_lowers_the_loss(tmp_path):
    loop.run(Regression(), attrs.evolve(CONFIG, steps=150), 0, tmp_path)
    losses = [line["loss"] for line in log_of(tmp_path)]
    assert sum(losses[-20:]) < 0.5 * sum(losses[:20])


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_last_checkpoint(tmp_path):
    task = Regression()
    task.broken_at = 6
    with pytest.raises(loop.TrainingError, match=r"step 6: the loss or its gradient is not finite"):
        loop.run(task, CONFIG, 0, tmp_path)
    other = Regression(seed=3)
    loop.load_state(tmp_path, other.state)
    assert not loop.is_finished(tmp_path, CONFIG.steps)
    assert all(torch.isfinite(parameter).all() for parameter in other.state.parameters())


def test_a_checkpoint_of_another_configuration_is_refused(tmp_path):
    loop.run(Regression(), CONFIG, 0, tmp_path)
    with pytest.raises(loop.TrainingError, match="another configuration or seed"):
        loop.run(Regression(), attrs.evolve(CONFIG, clip=2.0), 0, tmp_path)
    with pytest.raises(loop.TrainingError, match="another configuration or seed"):
        loop.run(Regression(), CONFIG, 1, tmp_path)


@pytest.mark.parametrize("kept", [0, 10, 200])
def test_a_damaged_checkpoint_is_an_error_that_says_what_to_do(tmp_path, kept):
    loop.run(Regression(), CONFIG, 0, tmp_path)
    path = tmp_path / loop.CHECKPOINT
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(loop.TrainingError, match="damaged checkpoint"):
        loop.run(Regression(), CONFIG, 0, tmp_path)


def test_loading_from_an_empty_folder_or_into_another_network_is_an_error(tmp_path):
    with pytest.raises(loop.TrainingError, match="no checkpoint there"):
        loop.load_state(tmp_path, Regression().state)
    loop.run(Regression(), CONFIG, 0, tmp_path)
    with pytest.raises(loop.TrainingError, match="does not fit the network"):
        loop.load_state(tmp_path, nn.Linear(3, 3))
    with pytest.raises(loop.TrainingError, match="does not fit the network"):
        loop.load_state(tmp_path, nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.3), nn.Linear(8, 1)))


def test_the_learning_rate_climbs_and_falls():
    config = OptimisationConfig(steps=100, warmup=0.1, final_rate=0.1)
    rates = [loop.rate(step, config) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == rates[9] == pytest.approx(1.0)
    assert rates[9:] == sorted(rates[9:], reverse=True)
    assert rates[-1] == pytest.approx(0.1, abs=0.01)


# --- configurations


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "config.toml"
    path.write_text(text)
    return path


def test_every_config_in_the_repository_can_be_read():
    assert load_config(TinyConfig, CONFIGS / "tiny.toml").network.subject_embedding_size == 384


def test_changes_are_applied_in_order(tmp_path):
    path = write(tmp_path, "steps = 5\nbatch_size = 2\n")
    config = load_config(Stage1Config, path, ["steps=7", "steps=9", "learning_rate=1e-4"])
    assert (config.steps, config.batch_size, config.learning_rate) == (9, 2, 1e-4)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("steps = 5\nstep = 3\n", r"unknown key step \(known: steps, "),
        ("batch_size = 5\n", r"missing key 'steps'"),
        ("steps = '5'\n", r"expected int, got '5'.*steps"),
        ("steps = true\n", r"expected int, got True"),
        ("steps = 5.5\n", r"expected int, got 5.5"),
        ("steps = 0\n", r"steps: must be > 0, got 0"),
        ("steps = 5\nmodality_dropout = 0.5\n", r"modality_dropout: must be in \[0, 0.5\)"),
        ("steps = 5\nclip = nan\n", r"clip: must be > 0, got nan"),
        ("steps = = 5\n", r"cannot be read as TOML"),
    ],
)
def test_a_wrong_config_is_an_error_that_names_file_and_key(tmp_path, text, message):
    path = write(tmp_path, text)
    with pytest.raises(ConfigError, match=message) as caught:
        load_config(Stage1Config, path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [("steps", "expected key=value"), ("=3", "expected key=value"), ("stage1.stepps=3", "unknown key stepps")],
)
def test_a_wrong_change_is_an_error(change, message):
    with pytest.raises(ConfigError, match=message):
        load_config(TinyConfig, CONFIGS / "tiny.toml", [change])


def test_a_missing_config_is_an_error(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(TinyConfig, tmp_path / "none.toml")
