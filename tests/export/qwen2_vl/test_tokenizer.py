"""The real tokenizer on its way into a bundle: a small stand-in in the Hub's layout, with the whole Qwen vocabulary."""

import unicodedata
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest
import regex
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase

from benchmarks.standin import SPECIAL_TOKENS, read_ranks
from export.qwen2_vl.tokenizer import bundle_tokenizer, vision_config
from pydeper.bundle.config import Prompts, PromptStyle, VLMConfig
from pydeper.errors import BundleError
from pydeper.persona.preprocess import description_ids
from pydeper.untrusted import is_plain_text
from pydeper.vlm.prompt import PromptTemplate
from tests.support.hub.server import HubServer

ROWS = 151_936
SUBJECT = 151_657
KNOWN = {
    "Hello": 9707,
    " world": 1879,
    "<|endoftext|>": 151643,
    "<|im_start|>": 151644,
    "<|im_end|>": 151645,
    "<|vision_start|>": 151652,
    "<|vision_end|>": 151653,
    "<|image_pad|>": 151655,
    "<|video_pad|>": 151656,
}
SCRIPTS = [
    "A red bus, then somebody who's walking. They'LL've 12345 umbrellas!?",
    "Ein großes Straßenschild über der Brücke, naïve café",
    "Красный автобус едет по мокрой улице, 7 человек ждут.",
    "Ένα κόκκινο λεωφορείο περνά από τον δρόμο.",
    "حافلة حمراء في شارعٍ مُبلَّل، ثم ٣ أشخاص.",
    "אוטובוס אדום ברחוב רטוב, שָׁלוֹם",
    "गीली सड़क पर एक लाल बस, फिर क्षत्रिय",
    "রাস্তায় একটি লাল বাস",
    "ஈரமான தெருவில் ஒரு சிவப்பு பேருந்து",
    "รถบัสสีแดงบนถนนเปียก",
    "一辆红色的公共汽车在湿漉漉的街道上。",
    "濡れた道路を走る赤いバスと、ｶﾀｶﾅ。",
    "젖은 거리의 빨간 버스 한 대",
    "ቀይ አውቶቡስ በመንገድ ላይ",
    "წითელი ავტობუსი ქუჩაში",
    "👩🏽‍🚒🇹🇷👨‍👩‍👧‍👦 😀😀",
    "e\u0301 A\u030a \u1112\u1161\u11ab \ufb01 \u212b",  # decomposed, and what NFC keeps or folds
    "  two  spaces\t\ttabs \r\n\r\n lines\n \n end   ",
    "\u00a0no-break\u2003em\u200bzero\u2028line\u0085next\u001cfile\ufeff",
    "'S 'ſ 'rE it'ſ ʼs ’s",
]
# Characters that were assigned when the running Python was made: later ones are not in everybody's tables yet.
ASSIGNED = st.characters(exclude_categories=["Cs", "Cn"])
# What a prompt may hold: nothing that commands a terminal.
PLAIN = ASSIGNED.filter(lambda letter: is_plain_text(letter, breaks=True))
TEXTS = st.lists(st.sampled_from(SCRIPTS) | st.text(ASSIGNED, max_size=12), max_size=4).map("".join)
SPELLED = st.lists(
    st.sampled_from([*SPECIAL_TOKENS, "<subj>", "<|subj|>", "<|im_", "end|>", "<sub", "j>", " in ", "\n"])
    | st.text(ASSIGNED, max_size=6),
    max_size=8,
).map("".join)


# Ids


@given(TEXTS)
@settings(max_examples=150)
def test_ids_are_those_of_transformers(qwen: Tokenizer, theirs: PreTrainedTokenizerBase, text: str) -> None:
    ids = qwen.encode(text, add_special_tokens=False).ids
    assert ids == theirs.encode(text, add_special_tokens=False)
    assert qwen.decode(ids) == unicodedata.normalize("NFC", text)


@cache
def ranks() -> dict[bytes, int]:
    return read_ranks()


SPLIT = regex.compile(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def ids_by_rank(text: str) -> list[int]:
    """The vocabulary's own definition: in each word, merge the pair that makes the token of lowest rank, and again."""
    ids = []
    for word in SPLIT.findall(unicodedata.normalize("NFC", text)):
        parts = [bytes([byte]) for byte in word.encode()]
        while pairs := [(ranks()[a + b], i) for i, (a, b) in enumerate(pairwise(parts)) if a + b in ranks()]:
            _, i = min(pairs)
            parts[i : i + 2] = [parts[i] + parts[i + 1]]
        ids += [ranks()[part] for part in parts]
    return ids


@given(TEXTS)
@settings(max_examples=150)
def test_ids_are_those_of_the_vocabularys_definition(qwen: Tokenizer, text: str) -> None:
    assert qwen.encode(text).ids == ids_by_rank(text)


def test_known_ids(qwen: Tokenizer) -> None:
    assert qwen.encode("Hello world").ids == [KNOWN["Hello"], KNOWN[" world"]]
    assert {token: qwen.token_to_id(token) for token in KNOWN if token.startswith("<")}.items() <= KNOWN.items()
    assert [qwen.token_to_id(token) for token in SPECIAL_TOKENS] == list(range(151_643, SUBJECT))
    assert qwen.token_to_id("<subj>") == SUBJECT
    assert qwen.get_vocab_size() == SUBJECT + 1


def test_vocabulary_and_merges_do_where_there_is_no_tokenizer_json(copied: Path, qwen: Tokenizer) -> None:
    (copied / "tokenizer.json").unlink()
    found = bundle_tokenizer(copied, vocab_size=ROWS)
    assert found.to_str() == qwen.to_str()
    assert found.encode_special_tokens


# A user's text


@given(SPELLED)
@settings(max_examples=100)
def test_a_description_never_holds_special_tokens(qwen: Tokenizer, theirs: PreTrainedTokenizerBase, text: str) -> None:
    ids = description_ids(qwen, text, 10_000)
    assert max(ids, default=0) < 151_643
    assert qwen.decode(ids) == unicodedata.normalize("NFC", text)
    assert ids == theirs.encode(text, add_special_tokens=False, split_special_tokens=True)


def test_a_description_never_holds_special_tokens_after_the_file_either(qwen: Tokenizer, tmp_path: Path) -> None:
    qwen.save(str(tmp_path / "tokenizer.json"))
    loaded = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    text = "".join([*SPECIAL_TOKENS, "<subj>"])
    assert len(loaded.encode(text).ids) == len(SPECIAL_TOKENS) + 1  # the tokens are there to be found
    assert loaded.decode(description_ids(loaded, text, 1000)) == text
    assert loaded.token_to_id("<subj>") == SUBJECT


@given(SPELLED, SPELLED)
@settings(max_examples=60)
def test_a_prompts_own_text_never_holds_special_tokens(
    qwen: Tokenizer, config: VLMConfig, before: str, after: str
) -> None:
    before, after = (text.replace("<subj>", "< subj >") for text in (before, after))
    assume(is_plain_text(before + after, breaks=True))
    assume(f"{before}<subj>{after}".count("<subj>") == 1)  # pieces of it on both sides of the slot can make another
    plain = f"{before} - {after}".replace("<subj>", "")
    template = PromptTemplate(Prompts(before, {"own": PromptStyle(f"{before}<subj>{after}", plain)}), config, qwen)
    style = template.with_persona("own")
    end, start = KNOWN["<|im_end|>"], KNOWN["<|im_start|>"]
    image = [KNOWN["<|vision_start|>"], *[KNOWN["<|image_pad|>"]] * 3, KNOWN["<|vision_end|>"]]
    assert [i for i in template.image_ids(3) if i >= 151_643] == [start, end, start, *image]
    assert [i for i in style.before if i >= 151_643] == []
    assert [i for i in style.after if i >= 151_643] == [end, start]
    assert qwen.decode(list(style.before)) == unicodedata.normalize("NFC", before)
    assert qwen.decode(list(style.after)) == unicodedata.normalize("NFC", after) + "\nassistant\n"
    assert qwen.decode(list(template.without_persona("own"))) == unicodedata.normalize("NFC", plain) + "\nassistant\n"


# Prompts, against transformers


@given(
    st.sampled_from(["You are a helpful assistant.", "", " \n", "Sé breve.", "请简短。"]) | st.text(PLAIN, max_size=9),
    st.sampled_from(["Write a description of this photo in the style of ", "", "\n", "像"])
    | st.text(PLAIN, max_size=9),
    st.sampled_from(["", ".", "'s", " \n", ": 一句话"]) | st.text(PLAIN, max_size=9),
    st.integers(1, 9),
)
@settings(max_examples=100)
def test_prompts_are_those_of_transformers(
    qwen: Tokenizer,
    theirs: PreTrainedTokenizerBase,
    config: VLMConfig,
    system: str,
    before: str,
    after: str,
    image_tokens: int,
) -> None:
    steered, plain = f"{before}<subj>{after}", f"{before}it{after}"
    template = PromptTemplate(Prompts(system, {"own": PromptStyle(steered, plain)}), config, qwen)

    def expected(text: str) -> list[int]:
        content = [{"type": "image"}, {"type": "text", "text": text}]
        messages = [{"role": "system", "content": system}, {"role": "user", "content": content}]
        chat = theirs.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        assert chat.count("<|image_pad|>") == 1
        return theirs.encode(chat.replace("<|image_pad|>", "<|image_pad|>" * image_tokens), add_special_tokens=False)

    image, style = template.image_ids(image_tokens), template.with_persona("own")
    assert [*image, *style.before, SUBJECT, *style.after] == expected(steered)
    assert [*image, *template.without_persona("own")] == expected(plain)


# Repositories


def test_a_repository_on_the_hub(copied: Path, hub_server: HubServer, qwen: Tokenizer) -> None:
    commit = hub_server.publish("org/small", copied)
    for revision in (None, commit):
        assert bundle_tokenizer("org/small", revision, vocab_size=ROWS).to_str() == qwen.to_str()
        assert vision_config("org/small", revision=revision) == vision_config(copied)
    assert hub_server.downloaded("org/small") == {"tokenizer.json", "preprocessor_config.json"}
    with pytest.raises(BundleError, match=r"'tokenizer\.json' of 'org/small' .* has no revision 'v2'"):
        bundle_tokenizer("org/small", "v2", vocab_size=ROWS)
    with pytest.raises(BundleError, match=r"'preprocessor_config\.json' of 'org/none' is not on the Hugging Face Hub"):
        vision_config("org/none")


def test_a_repository_on_the_hub_without_tokenizer_json(copied: Path, hub_server: HubServer, qwen: Tokenizer) -> None:
    (copied / "tokenizer.json").unlink()
    (copied / "preprocessor_config.json").unlink()
    commit = hub_server.publish("org/older", copied)
    assert bundle_tokenizer("org/older", commit, vocab_size=ROWS).to_str() == qwen.to_str()
    with pytest.raises(BundleError, match=r"org/older: has no preprocessor_config\.json"):
        vision_config("org/older")


def test_a_repository_in_the_cache_needs_no_hub(
    copied: Path, hub_server: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    hub_server.publish("org/small", copied)
    config = vision_config("org/small")
    requests = hub_server.requests
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert vision_config("org/small") == config
    with pytest.raises(BundleError, match=r"'tokenizer\.json' of 'org/small' is not in the local cache"):
        bundle_tokenizer("org/small", vocab_size=ROWS)
    assert hub_server.requests == requests


def test_sources_that_are_none(copied: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no/such/folder: is neither a folder nor a Hub id"):
        bundle_tokenizer("no/such/folder", vocab_size=ROWS)
    with pytest.raises(BundleError, match=r"the folder .* has no revisions, got 'main'"):
        vision_config(copied, revision="main")
    with pytest.raises(BundleError, match=r"has no preprocessor_config\.json"):
        vision_config(tmp_path)
    with pytest.raises(BundleError, match=r"has neither tokenizer\.json nor vocab\.json and merges"):
        bundle_tokenizer(tmp_path, vocab_size=ROWS)


@pytest.mark.parametrize("damage", ["", "{}", '{"model": 3}', "not JSON"])
def test_a_damaged_tokenizer(tmp_path: Path, damage: str) -> None:
    (tmp_path / "tokenizer.json").write_text(damage)
    with pytest.raises(BundleError, match=r"tokenizer\.json: is not a tokenizer that this version of tokenizers reads"):
        bundle_tokenizer(tmp_path, vocab_size=ROWS)


def test_a_damaged_vocabulary(copied: Path) -> None:
    (copied / "tokenizer.json").unlink()
    (copied / "vocab.json").write_text("{")
    with pytest.raises(BundleError, match=r"transformers cannot read its vocab\.json, merges\.txt"):
        bundle_tokenizer(copied, vocab_size=ROWS)


# `<subj>`


def small_tokenizer(folder: Path, vocab: dict[str, int], special: tuple[str, ...] = ()) -> Path:
    from tokenizers import models

    tokenizer = Tokenizer(models.BPE(vocab, []))
    tokenizer.add_special_tokens(list(special))
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def test_subject_takes_the_first_free_id_and_needs_a_row(tmp_path: Path) -> None:
    small_tokenizer(tmp_path, {"a": 0, "b": 1}, ("<|im_end|>",))
    assert bundle_tokenizer(tmp_path, vocab_size=4).token_to_id("<subj>") == 3
    with pytest.raises(ValueError, match=r"<subj> would be token 3 .* has 3 rows, 0 to 2: it needs one row more"):
        bundle_tokenizer(tmp_path, vocab_size=3)


def test_subject_may_be_there_as_a_special_token_alone(tmp_path: Path) -> None:
    small_tokenizer(tmp_path, {"a": 0, "b": 1}, ("<subj>", "<|im_end|>"))
    assert bundle_tokenizer(tmp_path, vocab_size=4).token_to_id("<subj>") == 2
    small_tokenizer(tmp_path, {"a": 0, "<subj>": 1, "b": 2})
    with pytest.raises(ValueError, match="has <subj> already, as the ordinary token 1"):
        bundle_tokenizer(tmp_path, vocab_size=4)
    tokenizer = Tokenizer.from_file(str(small_tokenizer(tmp_path, {"a": 0}) / "tokenizer.json"))
    tokenizer.add_tokens(["<subj>"])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(ValueError, match="has <subj> already, as the ordinary token 1"):
        bundle_tokenizer(tmp_path, vocab_size=4)


def test_a_vocabulary_with_gaps_is_refused_where_ids_collide(tmp_path: Path) -> None:
    small_tokenizer(tmp_path, {"a": 0, "b": 2})
    with pytest.raises(ValueError, match="has gaps, so <subj> got the id 2 of another token"):
        bundle_tokenizer(tmp_path, vocab_size=9)


def test_whole_texts_are_encoded_whatever_the_file_says(copied: Path, qwen: Tokenizer) -> None:
    tokenizer = Tokenizer.from_file(str(copied / "tokenizer.json"))
    tokenizer.enable_truncation(3)
    tokenizer.enable_padding(length=8)
    tokenizer.save(str(copied / "tokenizer.json"))
    found = bundle_tokenizer(copied, vocab_size=ROWS)
    assert found.encode(SCRIPTS[0]).ids == qwen.encode(SCRIPTS[0]).ids
    assert found.to_str() == qwen.to_str()
