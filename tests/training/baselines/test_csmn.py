"""CSMN: its memory, its user contexts, its training, and the descriptions that it writes."""

import json
from pathlib import Path

import attrs
import pytest
import torch

import pydeper
from pydeper import Sample
from pydeper.readers import write_samples
from tests.support.images import random_image
from training.baselines.csmn.decoding import greedy
from training.baselines.csmn.network import CSMN
from training.baselines.csmn.training import CSMNTask, Examples
from training.baselines.csmn.user_context import user_contexts
from training.baselines.run import BASELINES, DescriptionTask, run
from training.baselines.word_vocabulary import EOS, GO, PAD, SPECIALS, UNK, Vocabulary
from training.cli.main import main
from training.config import CSMNConfig, TrainingConfig, load_config
from training.errors import TrainingError
from training.loop.checkpoints import BEST
from training.loop.train import train
from training.preparation.splits import QUERY, SUPPORT, TEST, TRAIN, VAL

SMALL = CSMNConfig(steps=250, batch_size=8, learning_rate=5e-3, word_size=12, memory_size=16, channels=6, user_words=7)
WORDS, CHANNELS, LONGEST = 20, 9, 12


def network(seed: int = 0, longest: int = LONGEST) -> CSMN:
    """In double precision, its biases not zero, so that an empty slot that is read shows."""
    torch.manual_seed(seed)
    model = CSMN(WORDS, CHANNELS, longest, SMALL).double().eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "bias" in name:
                parameter.uniform_(-0.3, 0.3)
    return model


def inputs(batch: int = 3, length: int = 8, seed: int = 1) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Features, contexts and words, `GO` first."""
    generator = torch.Generator().manual_seed(seed)
    contexts, words = (
        torch.randint(len(SPECIALS), WORDS, (batch, count), generator=generator) for count in (5, length)
    )
    words[:, 0] = GO
    return torch.randn(batch, CHANNELS, generator=generator, dtype=torch.float64), contexts, words


# --- the network


@pytest.mark.parametrize("length", [1, 2, 7, 8, LONGEST])
def test_all_steps_at_once_and_step_by_step_give_the_same_logits(length):
    model, (images, contexts, words) = network(), inputs(length=length)
    image, user, written, steps = model.image(images), model.user(contexts), None, []
    for step in range(length):
        new = model.written(words[:, step : step + 1])
        written = new if written is None else written.followed_by(new)
        steps.append(model.read(image, user, written, model.queries(words[:, step : step + 1])))
    torch.testing.assert_close(model(images, contexts, words), torch.cat(steps, 1), atol=1e-5, rtol=0)


def test_the_memory_is_read_as_its_equations_say():
    """Slot by slot, with a convolution over the weighted slots of a whole memory of T."""
    model, (images, contexts, words) = network(), inputs(batch=1, length=4)
    relu, functional = torch.relu, torch.nn.functional
    expected = []
    for step in range(4):
        known, so_far = contexts[0], words[0, : step + 1]
        keys = torch.cat([model.image_key(images), *(model.lift(model.key_table(some)) for some in (known, so_far))])
        query = relu(model.query(relu(model.lift(model.query_table(so_far[-1])))))
        weights = torch.softmax(relu(keys) @ query, 0)
        of_image, of_user, of_words = weights.split([1, len(known), step + 1])
        read = []
        for some, weight, slots, convolutions in (
            (known, of_user, SMALL.user_words, model.user_convolutions),
            (so_far, of_words, LONGEST, model.output_convolutions),
        ):
            memory = torch.zeros(slots, SMALL.memory_size, dtype=torch.float64)
            memory[: len(some)] = weight[:, None] * relu(model.lift(model.content_table(some)))
            for linear, bias in zip(convolutions.weights, convolutions.biases, strict=True):
                kernel = linear.weight.unflatten(0, (-1, SMALL.channels)).permute(1, 2, 0)
                read.append(relu(functional.conv1d(memory.T[None], kernel, bias)).amax(-1)[0])
        image = relu(model.read_image(of_image * relu(model.image_content(images[0]))))
        expected.append(model.output(relu(model.hidden(image + torch.cat(read)))))
    torch.testing.assert_close(model(images, contexts, words)[0], torch.stack(expected))


def test_who_swaps_contexts_swaps_outputs():
    model, (images, contexts, words) = network(), inputs(batch=2)
    images, words = images[:1].expand(2, -1), words[:1].expand(2, -1)
    logits = model(images, contexts, words)
    assert not torch.allclose(logits[0], logits[1])
    torch.testing.assert_close(model(images, contexts.flip(0), words), logits.flip(0))


def test_the_order_of_a_context_counts():
    model, (images, contexts, words) = network(), inputs()
    assert not torch.allclose(model(images, contexts.flip(1), words), model(images, contexts, words))


def test_padding_changes_nothing():
    model, (images, contexts, words) = network(), inputs()
    logits = model(images, contexts, words)
    longer = torch.nn.functional.pad(contexts, (0, 2), value=PAD)
    after = torch.nn.functional.pad(words, (0, 4), value=PAD)
    torch.testing.assert_close(model(images, longer, after)[:, : words.shape[1]], logits)
    with torch.no_grad():
        for table in (model.key_table, model.content_table):
            table.weight[PAD] += 5
    torch.testing.assert_close(model(images, longer, words), logits)


def test_somebody_without_telling_words_can_be_described_for():
    model, (images, _, words) = network(), inputs()
    assert model(images, torch.full((3, 5), PAD), words).isfinite().all()


@pytest.mark.parametrize("changed", range(1, 8))
def test_a_word_changes_no_earlier_logit(changed):
    model, (images, contexts, words) = network(), inputs()
    other = words.clone()
    other[:, changed] = (other[:, changed] - len(SPECIALS) + 1) % (WORDS - len(SPECIALS)) + len(SPECIALS)
    before, after = model(images, contexts, words), model(images, contexts, other)
    torch.testing.assert_close(after[:, :changed], before[:, :changed], atol=0, rtol=0)
    assert not torch.allclose(after[:, changed:], before[:, changed:])


# --- decoding


def test_decoding_takes_the_likeliest_word_and_never_a_special_one():
    model, (images, contexts, _) = network(3), inputs(batch=4)
    with torch.no_grad():
        model.output.bias[[PAD, GO, UNK]] += 100
    texts = greedy(model, images, contexts)
    for row, text in enumerate(texts):
        logits = model(images[[row]], contexts[[row]], torch.tensor([[GO, *text][:LONGEST]]))[0]
        logits[:, [PAD, GO, UNK]] = -torch.inf
        assert logits.argmax(-1).tolist() == [*text, EOS][:LONGEST]
    assert any(texts)


def test_decoding_ends_with_the_end_or_after_the_most_words():
    model, (images, contexts, _) = network(), inputs()
    with torch.no_grad():
        model.output.bias[EOS] += 1000
    assert greedy(model, images, contexts) == [[], [], []]
    with torch.no_grad():
        model.output.bias[EOS] -= 2000
    assert [len(text) for text in greedy(model, images, contexts)] == [LONGEST] * 3


# --- words


def test_a_vocabulary_holds_the_most_frequent_words():
    vocabulary = Vocabulary.of(["A dog. A cat's toy!", "The dog, 2 dogs"], size=len(SPECIALS) + 4)
    assert vocabulary.words == ("a", "dog", ".", "2")
    assert vocabulary.encode("a CAT and a dog.") == [4, UNK, UNK, 4, 5, 6]
    assert vocabulary.decode([GO, 4, 5, UNK, 6, EOS, PAD]) == "a dog ."
    assert len(vocabulary) == 8
    assert Vocabulary.of(["..., !"], size=100).words == (".",)


def test_a_context_has_the_most_telling_words_first():
    pytest.importorskip("sklearn")
    texts = {"ana": ["a red red circle."], "ben": ["a circle", "a blue square."]}
    vocabulary = Vocabulary.of([text for own in texts.values() for text in own], size=100)
    contexts = user_contexts(texts, list(texts.values()), vocabulary, 3)
    assert [vocabulary.decode(row) for row in contexts.tolist()] == ["red a circle", "a blue square"]
    padded = user_contexts(texts, list(texts.values()), vocabulary, 6)
    assert [(row == PAD).sum() for row in padded] == [3, 2]


def test_the_context_of_somebody_unseen_counts_their_words_and_weighs_them_by_those_of_seen_people():
    pytest.importorskip("sklearn")
    seen = [["a red circle"], ["a blue circle", "a blue square"]]
    vocabulary = Vocabulary.of([text for own in seen for text in own], size=100)
    contexts = user_contexts({"eva": ["a circle and a square", "unheard words"]}, seen, vocabulary, 5)
    # "square" is of one of the two people, "a" and "circle" of both; "and" is no word of theirs.
    assert [vocabulary.decode(row) for row in contexts.tolist()] == ["a square circle"]


# --- training


def test_eight_texts_are_learned_by_heart(tmp_path):
    generator = torch.Generator().manual_seed(0)
    # No word twice: after two of the same, the memory cannot tell how many there were.
    texts = [
        (torch.randperm(WORDS - len(SPECIALS), generator=generator)[:6] + len(SPECIALS)).tolist() for _ in range(8)
    ]
    contexts = torch.randint(len(SPECIALS), WORDS, (8, 5), generator=generator)
    examples = Examples(torch.randn(8, CHANNELS, generator=generator), contexts, texts)
    config = attrs.evolve(SMALL, learning_rate=2e-3, word_size=64, memory_size=64, channels=32)
    torch.manual_seed(0)
    model = CSMN(WORDS, CHANNELS, LONGEST, config)
    train(CSMNTask(model, config, examples, examples, 0), config, 0, tmp_path)
    assert json.loads((tmp_path / "log.jsonl").read_text().splitlines()[-1])["loss"] < 0.05
    assert greedy(model.eval(), examples.images, contexts) == texts


def test_the_loss_is_the_mean_over_real_words():
    model = network().float()
    images, contexts, _ = inputs(batch=3)
    texts = [[5, 6, 7, 8, 9], [10], list(range(4, 4 + LONGEST))]
    examples = Examples(images.float(), contexts, texts)
    task = CSMNTask(model, attrs.evolve(SMALL, batch_size=3), examples, examples, 0)
    entropies = []
    for row, text in enumerate(texts):
        targets = torch.tensor([*text, EOS][:LONGEST])
        words = torch.tensor([[GO, *text][:LONGEST]])
        logits = model(examples.images[[row]], contexts[[row]], words)[0]
        entropies += torch.nn.functional.cross_entropy(logits, targets, reduction="none").tolist()
    assert task.evaluate()["loss"] == pytest.approx(sum(entropies) / len(entropies), rel=1e-5)
    assert task.losses(0, 0)["loss"].item() == pytest.approx(sum(entropies) / len(entropies), rel=1e-5)


# --- from samples to predictions


@pytest.fixture(scope="module")
def samples(tmp_path_factory) -> Path:
    """Ana and ben are seen, eva is not; all described the two last of eight images."""
    folder = tmp_path_factory.mktemp("samples")
    texts = {"ana": "a red circle. a red square.", "ben": "two blue shapes here.", "eva": "some blue thing."}
    for number in range(8):
        random_image(40, 40, number).save(folder / f"{number}.png")
    splits = {TRAIN: range(5), VAL: range(5, 6), TEST: range(6, 8)}
    unseen = {SUPPORT: range(5), QUERY: range(6, 8)}
    rows = [
        Sample(folder / f"{number}.png", text, subject=name, split=split)
        for name, text in texts.items()
        for split, numbers in (unseen if name == "eva" else splits).items()
        for number in numbers
    ]
    write_samples(folder / "samples.jsonl", rows)
    return folder / "samples.jsonl"


@pytest.fixture
def config(samples: Path, tmp_path: Path) -> TrainingConfig:
    """A VLM that is nowhere, and no stage 2: neither is asked for."""
    path = tmp_path / "small.toml"
    path.write_text(
        f"""
        name = "small"
        samples = {json.dumps(str(samples))}
        image_encoder = "standin:blank"
        image_size = 96
        vlm = "nowhere"
        [stage1]
        steps = 1
        [csmn]
        steps = 60
        batch_size = 5
        learning_rate = 1e-2
        evaluate_every = 20
        word_size = 12
        memory_size = 16
        channels = 6
        user_words = 7
        """
    )
    return load_config(TrainingConfig, path)


def rows(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_csmn_describes_for_seen_and_unseen_people_without_the_vlm(config, tmp_path):
    pytest.importorskip("sklearn")
    path = run("CSMN", DescriptionTask.load(config, "drawn"), tmp_path / "out")
    found = rows(path)
    groups = {"ana": "seen", "ben": "seen", "eva": "unseen"}
    assert [(row["subject"], row["dataset"], row["system"]) for row in found] == [
        (name, f"drawn, {group}", "CSMN") for name, group in groups.items() for _ in range(2)
    ]
    assert [row["prediction"] for row in found[:4:2]] == ["a red circle . a red square .", "two blue shapes here ."]
    assert (tmp_path / "out/training" / BEST).is_file()
    # A run that was stopped between lines goes on with the weights that it had.
    whole = path.read_bytes()
    path.rename(path.with_name("predictions.partial.jsonl"))
    path.with_name("predictions.partial.jsonl").write_bytes(b"".join(whole.splitlines(keepends=True)[:2]))
    assert run("CSMN", DescriptionTask.load(config, "drawn"), tmp_path / "out").read_bytes() == whole


def test_the_command_knows_every_baseline(config, tmp_path, capsys):
    pytest.importorskip("sklearn")
    small = ["baseline", "CSMN", "--config", str(tmp_path / "small.toml"), "--set", "csmn.steps=1"]
    assert main([*small, "--out", str(tmp_path / "out")]) == 0
    assert len(rows(tmp_path / "out/predictions.jsonl")) == 6
    with pytest.raises(SystemExit):
        main(["baseline", "none", *small[2:], "--out", str(tmp_path / "none")])
    message = capsys.readouterr().err
    assert all(name in message for name in BASELINES)


def test_what_unseen_people_are_asked_is_not_read(config, samples, tmp_path):
    pytest.importorskip("sklearn")
    read = pydeper.read_samples(samples)
    other = samples.with_name("other.jsonl")
    changed = [attrs.evolve(row, description="quite other words") if row.split == QUERY else row for row in read]
    write_samples(other, changed)
    predicted = [
        rows(run("CSMN", DescriptionTask.load(attrs.evolve(config, samples=str(file)), "x"), tmp_path / file.stem))
        for file in (samples, other)
    ]
    assert [row["reference"] for row in predicted[1]][-2:] == ["quite other words"] * 2
    before, after = ([row["prediction"] for row in found] for found in predicted)
    assert before == after


def test_nothing_to_learn_from_is_said(config, samples, tmp_path):
    unseen = samples.with_name("unseen.jsonl")
    write_samples(unseen, [row for row in pydeper.read_samples(samples) if row.split in (SUPPORT, QUERY)])
    task = DescriptionTask.load(attrs.evolve(config, samples=str(unseen)))
    with pytest.raises(TrainingError, match="CSMN: no description of a seen person has a word to learn"):
        run("CSMN", task, tmp_path / "out")


def test_validation_on_strangers_is_refused(config, samples, tmp_path):
    pytest.importorskip("sklearn")
    read = pydeper.read_samples(samples)
    strange = samples.with_name("strange.jsonl")
    write_samples(strange, [attrs.evolve(row, subject="dan") if row.split == VAL else row for row in read])
    task = DescriptionTask.load(attrs.evolve(config, samples=str(strange)))
    with pytest.raises(TrainingError, match="validation is on seen people, and 'dan' has no training sample"):
        run("CSMN", task, tmp_path / "out")
