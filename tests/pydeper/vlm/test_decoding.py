from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models
from transformers.generation.logits_process import (
    RepetitionPenaltyLogitsProcessor,
    SuppressTokensLogitsProcessor,
    TemperatureLogitsWarper,
    TopPLogitsWarper,
)

from pydeper import InvalidArgumentError, PydeperError
from pydeper.bundle.layout import BUILTIN, TOKENIZER
from pydeper.vlm.decoding import DecodingOptions, IncrementalText, TokenChooser, guide, nucleus

BUILT_IN_TOKENIZER = Tokenizer.from_file(str(BUILTIN / "tiny" / TOKENIZER))
ALL_IDS = st.integers(0, BUILT_IN_TOKENIZER.get_vocab_size() + 5)  # and some that no token has


def choose(chooser: TokenChooser, logits: np.ndarray, rows: Sequence[int] | None = None) -> list[int]:
    return chooser.choose(logits, range(len(logits)) if rows is None else rows)


def chooser_of(rows: int, options: DecodingOptions, suppressed: tuple[int, ...]) -> TokenChooser:
    chooser = TokenChooser(suppressed)
    for row in range(rows):
        chooser.add(row, options)
    return chooser


def random_logits(shape: tuple[int, ...], seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 3, shape).astype(np.float32)


# Options


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("max_new_tokens", 0),
        ("max_new_tokens", -1),
        ("max_new_tokens", 1.5),
        ("max_new_tokens", True),
        ("temperature", -0.1),
        ("temperature", float("nan")),
        ("temperature", "hot"),
        ("top_p", 0),
        ("top_p", 1.01),
        ("top_p", float("nan")),
        ("repetition_penalty", 0.99),
        ("repetition_penalty", float("inf")),
        ("repetition_penalty", float("nan")),
        ("repetition_penalty", None),
        ("repetition_penalty", True),
        ("strength", -1),
        ("strength", float("nan")),
        ("strength", float("inf")),
        ("strength", None),
        ("seed", -1),
        ("seed", 0.5),
    ],
)
def test_options_out_of_range(option: str, value: object) -> None:
    with pytest.raises(InvalidArgumentError, match=f"^{option} must be .* got "):
        DecodingOptions(**{option: value})  # type: ignore[arg-type]


# Choice of tokens


@pytest.mark.parametrize("temperature", [0, 0.01])
def test_the_suppressed_are_never_chosen_and_the_array_is_used_as_it_is(temperature: float) -> None:
    options = DecodingOptions(temperature=temperature, seed=0)
    logits = np.zeros((1, 50), dtype=np.float32)
    logits[0, [9, 7]] = 100, 1
    read_only = logits.copy()
    read_only.flags.writeable = False
    assert choose(chooser_of(1, options, (9, 3)), read_only) == [7]
    assert read_only[0, 9] == 100
    assert choose(chooser_of(1, options, (9, 3)), logits) == [7]
    assert np.isneginf(logits[0, [9, 3]]).all()


def test_the_first_of_equals_wins() -> None:
    logits = np.array([[0, 3, 1, 3], [2, 2, 2, 2]], dtype=np.float32)
    assert choose(chooser_of(2, DecodingOptions(), ()), logits) == [1, 0]
    assert nucleus(logits[1], 1.0, 0.5)[0].tolist() == [0, 1]


@given(
    st.integers(0, 2**32),
    st.floats(1, 5),
    st.sets(st.integers(0, 11), max_size=6),
    st.lists(st.integers(1, 8), min_size=1, max_size=4),
)
def test_the_penalty_is_that_of_transformers_however_rows_end(
    seed: int, penalty: float, suppressed: set[int], lengths: list[int]
) -> None:
    """Each row ends at a step of its own; the others go on with their own tokens."""
    chooser = chooser_of(len(lengths), DecodingOptions(repetition_penalty=penalty), tuple(suppressed))
    penalise = RepetitionPenaltyLogitsProcessor(penalty)
    suppress = SuppressTokensLogitsProcessor(sorted(suppressed), device="cpu")
    generated: list[list[int]] = [[] for _ in lengths]
    for step in range(max(lengths)):
        alive = [row for row, length in enumerate(lengths) if step < length]
        logits = random_logits((len(alive), 12), seed + step)
        expected = []
        for row, scores in zip(alive, logits.copy(), strict=True):
            ids = torch.tensor([generated[row]], dtype=torch.int64)
            expected.append(int(suppress(ids, penalise(ids, torch.tensor(scores[None])))[0].argmax()))
        found = choose(chooser, logits, alive)
        assert found == expected
        for row, token in zip(alive, found, strict=True):
            generated[row].append(token)


@given(st.integers(0, 2**32), st.lists(st.integers(1, 6), min_size=2, max_size=5), st.booleans())
def test_a_row_draws_as_it_would_alone(seed: int, lengths: list[int], backwards: bool) -> None:
    options = DecodingOptions(temperature=1.0, top_p=0.9, repetition_penalty=1.3, seed=4)
    logits = random_logits((max(lengths), len(lengths), 30), seed)
    together: list[list[int]] = [[] for _ in lengths]
    chooser = chooser_of(len(lengths), options, (2,))
    for step in range(max(lengths)):
        alive = [row for row, length in enumerate(lengths) if step < length][:: -1 if backwards else 1]
        for row, token in zip(alive, choose(chooser, logits[step, alive], alive), strict=True):
            together[row].append(token)
    for row, length in enumerate(lengths):
        alone = chooser_of(1, options, (2,))
        assert together[row] == [choose(alone, logits[step, [row]])[0] for step in range(length)]


@given(
    st.lists(st.one_of(st.floats(-30, 30).map(lambda x: round(x, 3)), st.integers(-3, 3)), min_size=2, max_size=40),
    st.floats(0.1, 5),
    st.floats(0.01, 1),
)
@example([0.0] * 8, 1.0, 0.5)
@example([5.0, *[0.0] * 30], 1.0, 0.8)
def test_the_nucleus_is_that_of_transformers(values: list[float], temperature: float, top_p: float) -> None:
    logits = np.array(values, np.float32)
    scores = TemperatureLogitsWarper(temperature)(torch.empty(1, 0), torch.tensor(logits[None], dtype=torch.float64))
    share = torch.sort(scores.softmax(-1)).values.cumsum(-1)
    assume(top_p == 1 or float((share - (1 - top_p)).abs().min()) > 1e-5 or (share == 1 - top_p).any())
    kept = (TopPLogitsWarper(top_p)(torch.empty(1, 0), scores) if top_p < 1 else scores)[0].numpy()
    tokens, probabilities = nucleus(logits, temperature, top_p)
    # Which of equals are in is each implementation's own affair.
    assert sorted(logits[tokens]) == sorted(logits[np.isfinite(kept) & (kept - kept.max() > -100)])
    weights = np.exp(np.sort(kept[np.isfinite(kept)]) - kept.max())
    found = np.sort(probabilities) / probabilities.sum()
    np.testing.assert_allclose(found, (weights / weights.sum())[-len(found) :], rtol=1e-4, atol=1e-7)
    assert len(set(tokens.tolist())) == len(tokens)
    assert top_p - 1e-6 <= probabilities.sum() <= 1 + 1e-6


@pytest.mark.parametrize("spread", [0.01, 1, 4])
@pytest.mark.parametrize("top_p", [1e-9, 0.3, 0.9, 0.9999])
def test_the_nucleus_of_a_whole_vocabulary_is_that_of_transformers(spread: float, top_p: float) -> None:
    logits = random_logits((151_936,), seed=1) * np.float32(spread)
    kept = TopPLogitsWarper(top_p)(torch.empty(1, 0), torch.tensor(logits[None], dtype=torch.float64))[0]
    expected = torch.nonzero(kept.isfinite())[:, 0].tolist()
    tokens, probabilities = nucleus(logits, 1.0, top_p)
    # At the edge, where 150,000 roundings have added up, one token more or less of a millionth is neither's error.
    differing = set(tokens.tolist()) ^ set(expected)
    assert len(differing) <= max(2, len(expected) // 10_000)
    assert (np.diff(probabilities) <= 0).all()


def test_sampling_draws_from_the_nucleus_by_probability() -> None:
    probabilities = np.array([0.1, 0.5, 0.0, 0.4])
    with np.errstate(divide="ignore"):
        logits = np.repeat(np.log(probabilities)[None], 4_000, axis=0)
    for top_p, expected in (
        (1.0, probabilities),
        (0.8, np.array([0, 5 / 9, 0, 4 / 9])),
        (0.49, np.array([0, 1, 0, 0])),
        (1e-9, np.array([0, 1, 0, 0])),
    ):
        chooser = chooser_of(1, DecodingOptions(temperature=1.0, top_p=top_p, seed=0), ())
        drawn = np.array(chooser.choose(logits, [0] * len(logits)))
        counts = np.bincount(drawn, minlength=4) / len(drawn)
        np.testing.assert_allclose(counts, expected, atol=0.03)
        assert ((counts > 0) == (expected > 0)).all()


def test_temperature_flattens_or_sharpens() -> None:
    logits = np.repeat(np.log([[0.2, 0.8]]), 4_000, axis=0)
    for temperature, share in ((0.5, 0.64 / 0.68), (2.0, 2 / 3), (5e-324, 1.0), (1e300, 0.5)):
        chooser = chooser_of(1, DecodingOptions(temperature=temperature, seed=0), ())
        drawn = np.array(chooser.choose(logits, [0] * len(logits)))
        assert drawn.mean() == pytest.approx(share, abs=0.03)


@pytest.mark.parametrize("extreme", [{"temperature": 1e300}, {"temperature": 5e-324}, {"repetition_penalty": 1e308}])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_extremes_and_all_widths_of_numbers_choose_what_is_allowed(
    extreme: dict[str, float], dtype: type[np.floating]
) -> None:
    chooser = chooser_of(1, DecodingOptions(seed=0, **extreme), (1, 2))  # type: ignore[arg-type]
    tokens = [choose(chooser, (random_logits((1, 8), step) - 20).astype(dtype))[0] for step in range(6)]
    assert not {1, 2} & set(tokens)
    if "repetition_penalty" in extreme:
        assert len(set(tokens)) == 6


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("temperature", [0, 1])
def test_what_is_no_number_is_an_error_with_its_remedy(value: float, temperature: float) -> None:
    logits = random_logits((2, 9), 0)
    logits[1, 5] = value
    with pytest.raises(PydeperError, match=r"NaN or infinity.*another `precision`"):
        choose(chooser_of(2, DecodingOptions(temperature=temperature), (0,)), logits)
    logits[1, 5] = 0
    logits[1, 0] = value  # suppressed anyway
    assert len(choose(chooser_of(2, DecodingOptions(temperature=temperature), (0,)), logits)) == 2


@given(st.integers(0, 2**32), st.floats(0, 5))
def test_guidance_is_between_the_log_probabilities(seed: int, strength: float) -> None:
    persona, plain = random_logits((2, 3, 20), seed)
    expected = torch.tensor(plain, dtype=torch.float64).log_softmax(-1) * (1 - strength)
    expected += torch.tensor(persona, dtype=torch.float64).log_softmax(-1) * strength
    before = persona.copy(), plain.copy()
    np.testing.assert_allclose(guide(persona, plain, strength), expected.numpy(), rtol=1e-4, atol=1e-3)
    np.testing.assert_array_equal((persona, plain), before)
    assert np.isfinite(guide(persona, plain, 1e300)).all()


# Text that grows


def check_grows(tokenizer: Tokenizer, ids: Sequence[int]) -> None:
    """After every token all is out but one unfinished character, and in the end nothing is missing."""
    growing, text = IncrementalText(tokenizer), ""
    for number, token in enumerate(ids, 1):
        piece = growing.push(token)
        text += piece
        assert tokenizer.decode(ids[:number]) in (text, text + "\ufffd")
    assert text + growing.finish() == tokenizer.decode(ids)
    assert growing.finish() == ""


EMOJI = [
    "😀",
    "👩‍👩‍👧‍👦",
    "🏳️‍🌈",
    "👍🏽",
    "🇩🇪",
    "é",
    "e\u0301",
    "ặ",
    "a\u0323\u0302",
    "क्षि",
    "한",
    "日本",
    "\u200d",
    "\ufe0f",
    " ",
    "a",
    "\ufffd",
]


@given(st.one_of(st.text(max_size=40), st.lists(st.sampled_from(EMOJI), max_size=15).map("".join)), st.integers(0, 3))
def test_text_never_breaks_inside_a_character(text: str, cut: int) -> None:
    ids = BUILT_IN_TOKENIZER.encode(text).ids
    ids = ids[: len(ids) - cut]
    check_grows(BUILT_IN_TOKENIZER, ids)
    growing = IncrementalText(BUILT_IN_TOKENIZER)
    pieces = [growing.push(token) for token in ids]
    assert "\ufffd" in text or all("\ufffd" not in piece for piece in pieces)


@given(st.lists(ALL_IDS, max_size=60))
@settings(max_examples=300)
def test_any_tokens_at_all_grow_to_their_text(ids: list[int]) -> None:
    check_grows(BUILT_IN_TOKENIZER, ids)


@given(st.lists(st.sampled_from([b"\x80", b"\xbf", b"\xe2", b"\x82\xac", b"\xf0\x9f", b"\x98\x80", b"\xed\xa0", b"\xc0",
    b"\xff", b"\xac\xe2\x82", b"a", b"\xf4\x90", b"\xef\xbf\xbd"]), max_size=40))  # fmt: skip
@settings(max_examples=300)
def test_bytes_that_are_no_utf_8_come_out_at_once(parts: list[bytes]) -> None:
    """Tokens that begin and end inside characters, as a byte-level vocabulary may hold."""
    alphabet = byte_alphabet()
    vocabulary = {"".join(alphabet[byte] for byte in part): i for i, part in enumerate(dict.fromkeys(parts))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="a"))
    tokenizer.decoder = decoders.ByteLevel()
    ids = [tokenizer.token_to_id("".join(alphabet[byte] for byte in part)) for part in parts]
    assert tokenizer.decode(ids) == b"".join(parts).decode("utf-8", "replace")
    check_grows(tokenizer, ids)


def byte_alphabet() -> list[str]:
    """GPT-2's letters for the 256 bytes."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = iter(range(256, 512))
    return [chr(byte) if byte in printable else chr(next(others)) for byte in range(256)]


def fallback_tokenizer() -> Tokenizer:
    """As Llama's: words with ▁ for the space before them, and bytes where there is no word."""
    words = ["▁a", "▁the", "x", "▁", "é"]
    vocabulary = {token: i for i, token in enumerate([*words, *(f"<0x{byte:02X}>" for byte in range(256))])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="x"))
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.add_special_tokens([AddedToken("</s>", special=True)])
    return tokenizer


FALLBACK = fallback_tokenizer()
FALLBACK_IDS = st.one_of(
    st.integers(0, 6), st.integers(0, 261), st.sampled_from(list("😀é".encode())).map(lambda b: b + 5)
)


@given(st.lists(FALLBACK_IDS, max_size=30))
@settings(max_examples=300)
def test_byte_fallback_waits_for_the_end_of_its_bytes(ids: list[int]) -> None:
    growing, text = IncrementalText(FALLBACK), ""
    for number, token in enumerate(ids, 1):
        text += growing.push(token)
        if token < 5:  # no byte
            assert FALLBACK.decode(ids[:number]) in (text, text + "\ufffd")
    assert text + growing.finish() == FALLBACK.decode(ids)


def test_a_character_of_four_tokens_comes_whole() -> None:
    ids = BUILT_IN_TOKENIZER.encode("a😀b").ids
    growing = IncrementalText(BUILT_IN_TOKENIZER)
    pieces = [growing.push(token) for token in ids]
    assert len(ids) == 6
    assert pieces == ["a", "", "", "", "😀", "b"]
    assert growing.finish() == ""


def test_a_token_late_in_a_text_is_decoded_with_few_others(monkeypatch: pytest.MonkeyPatch) -> None:
    lengths = []

    class Counting:
        def __getattr__(self, name: str) -> object:
            return getattr(BUILT_IN_TOKENIZER, name)

        def decode(self, ids: Sequence[int]) -> str:
            lengths.append(len(ids))
            return BUILT_IN_TOKENIZER.decode(ids)

    growing = IncrementalText(Counting())  # type: ignore[arg-type]
    garbage = BUILT_IN_TOKENIZER.encode("😀").ids[1]
    for token in [*BUILT_IN_TOKENIZER.encode("a red circle " * 50).ids, *[garbage] * 300]:
        growing.push(token)
    assert max(lengths) <= 5
