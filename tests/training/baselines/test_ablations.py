"""Each ablation switches off what it says, and nothing else takes its checkpoints."""

import attrs
import onnx
import pytest
import torch
from safetensors.torch import load_file
from transformers import DINOv3ConvNextConfig, DINOv3ConvNextModel

from export.persona_encoder import export_persona_encoder
from tests.support.paths import CONFIGS
from tests.training.network.small_network import CONFIG, SWITCHES, collate, draw_sample
from training.baselines.ablations import ABLATIONS, settings_of
from training.config import ConfigError, OptimisationConfig, TrainingConfig, load_config
from training.errors import TrainingError
from training.loop.checkpoints import CHECKPOINT, Checkpoints, load_state
from training.loop.train import train
from training.network import Deper, DeperOutput, ImageEncoder, NetworkConfig, TextTable
from training.tiny.config import TinyConfig


def network(*off: str, seed: int = 0) -> Deper:
    torch.manual_seed(seed)
    return Deper(attrs.evolve(CONFIG, **dict.fromkeys(off, False)), num_subjects=4).double().eval()


def sample(words: int = 4, fixations: int = 4, seed: int = 1) -> list[torch.Tensor]:
    return list(draw_sample(words, fixations, torch.Generator().manual_seed(seed)))


def run(deper: Deper, one: list[torch.Tensor]) -> DeperOutput:
    return deper(*collate([tuple(one)], len(one[1]), len(one[2])))


def subject_embedding(deper: Deper, one: list[torch.Tensor]) -> torch.Tensor:
    return run(deper, one).subject_embedding


# --- what each switches off; the whole network beside it shows that the question is one


@pytest.mark.parametrize("off", [(), ("dynamics",)])
def test_without_dynamics_fixations_are_a_set_without_durations(off):
    deper, (image, words, boxes, durations) = network(*off), sample()
    plain = subject_embedding(deper, [image, words, boxes, durations])
    order = torch.tensor([2, 0, 3, 1])
    permuted = subject_embedding(deper, [image, words, boxes[order], durations[order]])
    longer = subject_embedding(deper, [image, words, boxes, durations * 3])
    moved = subject_embedding(deper, [image, words, boxes * 0.5, durations])
    assert torch.allclose(plain, permuted) == bool(off)
    assert torch.equal(plain, longer) == bool(off)
    assert not torch.allclose(plain, moved)


@pytest.mark.parametrize("off", [(), ("trajectory",)])
def test_text_only_reads_no_trajectory(off):
    deper, one = network(*off), sample()
    other = [*one[:2], *sample(fixations=2, seed=9)[2:]]
    assert torch.allclose(subject_embedding(deper, one), subject_embedding(deper, other)) == bool(off)
    if off:
        nothing = [*one[:2], one[2][:0], one[3][:0]]
        whole = network()
        whole.load_state_dict(deper.state_dict(), strict=False)
        torch.testing.assert_close(subject_embedding(deper, one), subject_embedding(whole, nothing))


@pytest.mark.parametrize("off", [(), ("dual_context",)])
def test_without_dual_context_neither_stream_hears_of_the_other(off):
    deper, one, other = network(*off), sample(), sample(seed=9)
    texts, trajectories = ([one[0], one[1], *other[2:]], [one[0], other[1], *one[2:]])
    dual, with_text, with_trajectory = (run(deper, x).context.dual[0] for x in (one, texts, trajectories))
    assert torch.equal(dual[:4], with_text[:4]) == bool(off)
    assert torch.equal(dual[4:], with_trajectory[4:]) == bool(off)
    assert not torch.allclose(dual[4:], with_text[4:])  # either way z_s reads both
    assert not torch.allclose(*(subject_embedding(deper, x) for x in (one, texts)))


@pytest.mark.parametrize("off", [(), ("film",), ("trajectory_latent",), ("film", "trajectory_latent")])
def test_what_the_trajectory_decoder_knows(off):
    deper, one = network(*off), sample()
    _, context = deper.persona_encoder(*collate([tuple(one)], 4, 4))
    generator = torch.Generator().manual_seed(3)
    z_s, other_z_s = torch.randn(2, 1, CONFIG.subject_embedding_size, generator=generator, dtype=torch.float64)
    other_dual = context._replace(dual=torch.randn(context.dual.shape, generator=generator, dtype=torch.float64))
    boxes = deper.trajectory_decoder(z_s, context).boxes
    of_other_person = deper.trajectory_decoder(other_z_s, context).boxes
    of_other_trajectory = deper.trajectory_decoder(z_s, other_dual).boxes
    # z_s reaches it through FiLM, or in place of z_traj; Z_dual through z_traj alone.
    assert torch.equal(boxes, of_other_person) == (off == ("film",))
    assert torch.equal(boxes, of_other_trajectory) == ("trajectory_latent" in off)


@pytest.mark.parametrize("name", list(ABLATIONS))
def test_every_parameter_that_is_there_learns(name):
    config = load_config(TinyConfig, CONFIGS / "tiny.toml", ABLATIONS[name].settings)
    off = {switch: getattr(config.network, switch) for switch in SWITCHES}
    model = Deper(attrs.evolve(CONFIG, **off), num_subjects=4).double()
    output = model(*collate([tuple(sample())] * 2, 4, 4))
    (output.subject_logits.square().sum() + output.boxes.sum() + output.validity_logits.sum()).backward()
    silent = {key for key, parameter in model.named_parameters() if parameter.grad is None or not parameter.grad.any()}
    # Softmax ignores what is added to every score, and one key alone leaves nothing to choose.
    silent = {key for key in silent if not key.endswith("key.bias") and "latent_attention.attention" not in key}
    # A stream that is never read says nothing to learn from.
    trajectory = {key for key in silent if ".trajectory." in key or "trajectory_embedding" in key}
    assert silent == trajectory
    assert bool(trajectory) == (name == "text only")


# --- names and settings


def test_each_is_settings_of_every_configuration():
    for kind, file in ((TinyConfig, "tiny.toml"), (TrainingConfig, "deper.toml")):
        changes = ["samples=x"] if kind is TrainingConfig else []
        whole = load_config(kind, CONFIGS / file, changes)
        variants = [load_config(kind, CONFIGS / file, [*changes, *settings_of(name)]) for name in ABLATIONS]
        assert len({repr(config) for config in (whole, *variants)}) == len(ABLATIONS) + 1
        by_name = dict(zip(ABLATIONS, variants, strict=True))
        assert by_name["no contrast"].stage1.contrastive_weight == by_name["no contrast"].stage2.contrastive_weight == 0
        assert by_name["no reconstruction"].stage1.trajectory_weight == 0
        assert by_name["no reconstruction"].network == whole.network
        assert by_name["text only"].stage1.trajectory_weight == 0
    with pytest.raises(ConfigError, match="there is no ablation 'no film'; there are: 'text only', "):
        settings_of("no film")


def test_nothing_is_ablated_by_default():
    assert all(getattr(NetworkConfig(), switch) for switch in SWITCHES)


# --- checkpoints


@pytest.mark.parametrize("trained", [(), *((switch,) for switch in SWITCHES)])
def test_a_checkpoint_fits_only_the_network_that_it_was_trained_as(tmp_path, trained):
    state = torch.nn.ModuleDict({"deper": network(*trained)})
    Checkpoints(tmp_path, {}).save(state, torch.optim.AdamW(state.parameters()), 1)
    for switches in ((), *((switch,) for switch in SWITCHES)):
        other = network(*switches, seed=7)
        if switches == trained:
            load_state(tmp_path, other, "deper")
            assert torch.equal(subject_embedding(other, sample()), subject_embedding(network(*trained), sample()))
        else:
            with pytest.raises(TrainingError, match=r"does not fit the network.*differing tensors"):
                load_state(tmp_path, other, "deper")


def test_a_checkpoint_says_whether_the_order_of_words_was_read(tmp_path):
    plain, ordered = (
        Deper(attrs.evolve(CONFIG, word_order=weight), num_subjects=4).double().eval() for weight in (0.0, 0.3)
    )
    for name, deper, other in (("plain", plain, ordered), ("ordered", ordered, plain)):
        state = torch.nn.ModuleDict({"deper": deper})
        (tmp_path / name).mkdir()
        Checkpoints(tmp_path / name, {}).save(state, torch.optim.AdamW(state.parameters()), 1)
        with pytest.raises(TrainingError, match=r"does not fit the network.*differing tensors"):
            load_state(tmp_path / name, other, "deper")


def test_the_mark_of_a_switch_is_in_the_checkpoint_alone(tmp_path):
    class Task:
        name = "subject embedding"
        state = network("dynamics")

        def parameter_groups(self):
            return [{"params": list(self.state.parameters()), "lr": 1e-3}]

        def losses(self, step, part):
            return {"loss": subject_embedding(self.state, sample()).square().mean()}

    train(Task(), OptimisationConfig(steps=1), 0, tmp_path)
    stored = load_file(tmp_path / CHECKPOINT)
    assert stored["state.persona_encoder.without_dynamics"].numel() == 0
    assert set(network("dynamics").state_dict()) - set(network().state_dict()) == {"persona_encoder.without_dynamics"}


# --- export


@pytest.mark.slow
@pytest.mark.parametrize("switch", ["trajectory", "dynamics", "dual_context", "word_order"])
def test_every_persona_encoder_is_exported_as_it_is(tmp_path, switch):
    torch.manual_seed(0)
    backbone = DINOv3ConvNextModel(DINOv3ConvNextConfig(hidden_sizes=[4, 4, 8, 6], depths=[1, 1, 1, 1]))
    table = TextTable(torch.randn(11, CONFIG.text_channels))
    value = 0.5 if switch == "word_order" else False
    encoder = Deper(attrs.evolve(CONFIG, **{switch: value}), num_subjects=4).double().eval().persona_encoder
    file = tmp_path / "persona_encoder.onnx"
    differences = export_persona_encoder(file, encoder, ImageEncoder(backbone), table, image_size=96)
    assert max(differences.values()) < 1e-4
    inputs = {value.name for value in onnx.load(file).graph.input}
    assert inputs == {"pixel_values", "input_ids", "attention_mask", "boxes", "durations", "fixation_mask"}
