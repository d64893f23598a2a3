"""The training loop: resuming, the learning-rate schedule, evaluations, what it reports."""

import json
import sys
from pathlib import Path

import attrs
import pytest
import torch

from tests.support import processes
from tests.support.regression import LONG, SELECTING, SHORT, Regression
from tests.support.training_run import assert_same_end, log_of, metadata_of
from training.config import OptimisationConfig
from training.errors import TrainingError
from training.loop import logs
from training.loop.checkpoints import BEST, CHECKPOINT, is_finished, load_state
from training.loop.schedule import learning_rate_factor
from training.loop.train import NOT_FINITE, train


@pytest.mark.parametrize("stop", [1, 4, 5, 11])
def test_an_interrupted_run_goes_on_exactly(tmp_path, stop):
    whole = Regression()
    train(whole, SHORT, 0, tmp_path / "whole")
    first = Regression()
    first.stop_at = stop
    with pytest.raises(KeyboardInterrupt):
        train(first, SHORT, 0, tmp_path / "parts")
    second = Regression(seed=99)  # other weights: all that counts must come from the checkpoint
    if stop >= SHORT.checkpoint_every:
        train(second, SHORT, 0, tmp_path / "parts")
        assert log_of(tmp_path / "parts") == log_of(tmp_path / "whole")
        for one, other in zip(whole.state.parameters(), second.state.parameters(), strict=True):
            assert torch.equal(one, other)
    else:
        assert not (tmp_path / "parts" / CHECKPOINT).exists()


def test_training_lowers_the_loss(tmp_path):
    train(Regression(), attrs.evolve(SHORT, steps=150), 0, tmp_path)
    losses = [line["loss"] for line in log_of(tmp_path)]
    assert sum(losses[-20:]) < 0.5 * sum(losses[:20])


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_last_checkpoint(tmp_path):
    task = Regression()
    task.broken_at = 6
    with pytest.raises(TrainingError, match=r"step 6: the loss or its gradient is not finite"):
        train(task, SHORT, 0, tmp_path)
    other = Regression(seed=3)
    load_state(tmp_path, other.state)
    assert not is_finished(tmp_path, SHORT.steps)
    assert all(torch.isfinite(parameter).all() for parameter in other.state.parameters())


def test_the_learning_rate_climbs_and_falls():
    config = OptimisationConfig(steps=100, warmup=0.1, final_rate=0.1)
    rates = [learning_rate_factor(step, config) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == rates[9] == pytest.approx(1.0)
    assert rates[9:] == sorted(rates[9:], reverse=True)
    assert rates[-1] == pytest.approx(0.1, abs=0.01)


def test_the_best_evaluated_step_is_kept_and_loaded(tmp_path):
    task, weights = Regression(), []

    def evaluate() -> dict[str, float]:
        weights.append(task.state[0].weight.detach().clone())
        return {"loss": (3.0, 1.0, 2.0)[len(weights) - 1], "accuracy": 0.5}

    train(task, SELECTING, 0, tmp_path, evaluate=evaluate)
    evaluations = logs.read(tmp_path / logs.EVALUATIONS)
    assert [(line["step"], line["score"]) for line in evaluations] == [(5, -2.75), (10, -0.75), (12, -1.75)]
    assert metadata_of(tmp_path / BEST)["step"] == "10"
    other = Regression(seed=4)
    load_state(tmp_path, other.state)
    assert torch.equal(other.state[0].weight, weights[1])
    assert not torch.equal(task.state[0].weight, weights[1])
    train(other, SELECTING, 0, tmp_path)  # finished: what is loaded is the last step
    assert torch.equal(other.state[0].weight, task.state[0].weight)


def test_a_fresh_start_forgets_an_older_best(tmp_path):
    train(Regression(), SELECTING, 0, tmp_path, evaluate=lambda: {"loss": 0.0, "accuracy": 1.0})
    (tmp_path / CHECKPOINT).unlink()
    train(Regression(), SELECTING, 0, tmp_path, evaluate=lambda: {"loss": 9.0, "accuracy": 0.0})
    assert float(metadata_of(tmp_path / BEST)["score"]) == -9.0


def test_evaluating_changes_no_step(tmp_path):
    train(Regression(), attrs.evolve(SHORT, accumulation=1), 0, tmp_path / "without")

    def evaluate() -> dict[str, float]:
        torch.rand(7)
        return {"loss": 1.0, "accuracy": 0.0}

    train(Regression(), attrs.evolve(SELECTING, log_every=1), 0, tmp_path / "with", evaluate=evaluate)
    assert_same_end(tmp_path / "without", tmp_path / "with")


@pytest.mark.parametrize(
    ("figures", "message"),
    [
        ({"loss": 1.0}, "selection: accuracy is no figure of this evaluation, which has loss"),
        ({"loss": float("nan"), "accuracy": 0.0}, "step 5: the evaluation is not finite"),
    ],
)
def test_an_evaluation_that_cannot_be_weighed_is_an_error(tmp_path, figures, message):
    with pytest.raises(TrainingError, match=message):
        train(Regression(), SELECTING, 0, tmp_path, evaluate=lambda: figures)


def test_a_loss_that_is_not_finite_names_its_samples_in_a_file(tmp_path):
    task = Regression()
    task.broken_at = 6
    samples = [{"source": "ana.jsonl:3", "subject": "ana", "image": "street.jpg"}]
    with pytest.raises(TrainingError, match=r"listed in .*not-finite\.json") as caught:
        train(task, SHORT, 0, tmp_path, samples_of=lambda step: [{**sample, "step": step} for sample in samples])
    assert str(tmp_path / CHECKPOINT) in str(caught.value)
    written = json.loads((tmp_path / NOT_FINITE).read_text())
    assert written["step"] == 6
    assert written["samples"] == [{**samples[0], "step": 6}]
    assert written["losses"]["loss"] == "nan"


def test_tensorboard_gets_what_the_log_gets(tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    config = attrs.evolve(SELECTING, tensorboard=True, log_every=1)
    train(Regression(), config, 0, tmp_path, evaluate=lambda: {"loss": 1.0, "accuracy": 0.0})
    events = accumulator.EventAccumulator(str(tmp_path / logs.TENSORBOARD)).Reload()
    logged = [(event.step, event.value) for event in events.Scalars("train/loss")]
    assert logged == [(line["step"], pytest.approx(line["loss"])) for line in log_of(tmp_path)]
    assert [event.step for event in events.Scalars("val/score")] == [5, 10, 12]


def train_and_tell_imports(folder: Path) -> None:
    train(Regression(), LONG, 0, folder)
    found = [name for name in sys.modules if name.startswith(("tensorboard", "matplotlib"))]
    sys.stdout.write(f"\nimported: {found}\n")


def test_without_the_switch_tensorboard_is_not_imported(tmp_path):
    (printed,) = processes.run_ranks(train_and_tell_imports, tmp_path, folder=tmp_path / "printed", world_size=1)
    assert "\nimported: []\n" in printed
    assert "samples/s" in printed  # the bar tells rates
