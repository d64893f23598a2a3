"""Which checkpoints stay, which are refused, and what is loaded from them."""

import attrs
import pytest
import torch
from torch import nn

from tests.support.regression import SHORT, Regression
from tests.support.training_run import assert_same_end, log_of, metadata_of
from training.errors import TrainingError
from training.loop.checkpoints import CHECKPOINT, is_finished, load_state
from training.loop.train import train


def test_a_finished_run_is_not_run_again(tmp_path):
    task = Regression()
    train(task, SHORT, 0, tmp_path)
    assert is_finished(tmp_path, SHORT.steps)
    assert not is_finished(tmp_path, SHORT.steps + 1)
    again = Regression(seed=1)
    again.stop_at = 0
    train(again, SHORT, 0, tmp_path)
    assert len(log_of(tmp_path)) == SHORT.steps
    assert torch.equal(task.state[0].weight, again.state[0].weight)


def test_a_checkpoint_of_another_configuration_is_refused(tmp_path):
    train(Regression(), SHORT, 0, tmp_path)
    with pytest.raises(TrainingError, match=r"another configuration, seed or samples \(clip was"):
        train(Regression(), attrs.evolve(SHORT, clip=2.0), 0, tmp_path)
    with pytest.raises(TrainingError, match=r"another configuration, seed or samples \(seed was"):
        train(Regression(), SHORT, 1, tmp_path)


def test_a_checkpoint_says_which_samples_it_was_trained_on(tmp_path):
    train(Regression(), SHORT, 0, tmp_path, samples="these")
    train(Regression(), SHORT, 0, tmp_path, samples="these")
    train(Regression(), SHORT, 0, tmp_path)  # whoever does not say which may have any
    assert is_finished(tmp_path, SHORT.steps, {"samples": "these", "seed": 0})
    with pytest.raises(TrainingError, match="samples was 'these', is 'others'"):
        train(Regression(), SHORT, 0, tmp_path, samples="others")
    with pytest.raises(TrainingError, match="samples was 'these', is 'others'"):
        is_finished(tmp_path, SHORT.steps, {"samples": "others"})


@pytest.mark.parametrize("kept", [0, 10, 200])
def test_a_damaged_checkpoint_is_an_error_that_says_what_to_do(tmp_path, kept):
    train(Regression(), SHORT, 0, tmp_path)
    path = tmp_path / CHECKPOINT
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(TrainingError, match="damaged checkpoint"):
        train(Regression(), SHORT, 0, tmp_path)


def test_loading_from_an_empty_folder_or_into_another_network_is_an_error(tmp_path):
    with pytest.raises(TrainingError, match="no checkpoint there"):
        load_state(tmp_path, Regression().state)
    train(Regression(), SHORT, 0, tmp_path)
    with pytest.raises(TrainingError, match="does not fit the network"):
        load_state(tmp_path, nn.Linear(3, 3))
    with pytest.raises(TrainingError, match="does not fit the network"):
        load_state(tmp_path, nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.3), nn.Linear(8, 1)))


@pytest.mark.parametrize(("keep", "expected"), [(1, []), (2, [8, 12]), (9, [4, 8, 12])])
def test_the_last_few_checkpoints_stay(tmp_path, keep, expected):
    train(Regression(), attrs.evolve(SHORT, keep_checkpoints=keep), 0, tmp_path)
    kept = sorted(tmp_path.glob("checkpoint-*.safetensors"))
    assert [int(metadata_of(path)["step"]) for path in kept] == expected
    assert [path.name for path in kept] == [f"checkpoint-{step:08d}.safetensors" for step in expected]
    if kept:
        assert kept[-1].read_bytes() == (tmp_path / CHECKPOINT).read_bytes()


def test_a_run_goes_back_to_an_older_checkpoint_if_the_newest_is_damaged(tmp_path):
    config = attrs.evolve(SHORT, keep_checkpoints=2)
    train(Regression(), config, 0, tmp_path / "whole")
    train(Regression(), config, 0, tmp_path / "other")
    newest, older = tmp_path / "other" / CHECKPOINT, tmp_path / "other/checkpoint-00000008.safetensors"
    damaged = newest.read_bytes()[:50]
    newest.unlink()  # a link to the same bytes stands beside it
    newest.write_bytes(damaged)
    with pytest.raises(TrainingError, match=r"copy an older one over it \(checkpoint-00000008"):
        train(Regression(), config, 0, tmp_path / "other")
    newest.write_bytes(older.read_bytes())
    train(Regression(), config, 0, tmp_path / "other")
    assert_same_end(tmp_path / "whole", tmp_path / "other")


def test_a_newest_checkpoint_that_is_gone_does_not_take_the_older_ones_with_it(tmp_path):
    config = attrs.evolve(SHORT, keep_checkpoints=2)
    train(Regression(), config, 0, tmp_path)
    (tmp_path / CHECKPOINT).unlink()
    with pytest.raises(TrainingError, match=r"gone, and older ones stand beside it \(checkpoint-00000008"):
        train(Regression(), config, 0, tmp_path)
    assert len(list(tmp_path.glob("checkpoint-*.safetensors"))) == 2


def test_what_does_not_shape_the_curve_may_change(tmp_path):
    train(Regression(), attrs.evolve(SHORT, checkpoint_every=3), 0, tmp_path / "whole")
    first = Regression()
    first.stop_at = 6
    with pytest.raises(KeyboardInterrupt):
        train(first, SHORT, 0, tmp_path / "parts")
    other = attrs.evolve(SHORT, checkpoint_every=5, keep_checkpoints=2)
    train(Regression(), other, 0, tmp_path / "parts")
    assert_same_end(tmp_path / "whole", tmp_path / "parts")


def test_another_configuration_is_told_setting_by_setting(tmp_path):
    train(Regression(), SHORT, 0, tmp_path)
    with pytest.raises(TrainingError, match=r"\(clip was 1.0, is 2.0, seed was 0, is 1\)"):
        train(Regression(), attrs.evolve(SHORT, clip=2.0), 1, tmp_path)
