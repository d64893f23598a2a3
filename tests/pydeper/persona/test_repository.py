import json

import attrs
import markdown_it
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import pydeper
from pydeper import Persona, PersonaError, delete_persona, list_personas
from pydeper.cli.main import main
from pydeper.untrusted import is_plain_text

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

REPO = "org/personas"
CONSENT = "written consent, 2026-11-22"


def persona(name="ana", seed=0, **changes):
    vector = np.random.default_rng(seed).standard_normal(384)
    made = Persona(
        subject_embedding=vector, encoder_fingerprint="sha256:" + "f" * 64, model_id="org/m", num_samples=5, name=name
    )
    return attrs.evolve(made, **changes)


def card(server):
    return server.repositories[REPO].files()["README.md"].decode()


def cells(text):
    """The body of the only table of a page, as a Markdown reader shows it: rows of cells."""
    tokens = markdown_it.MarkdownIt("commonmark").enable("table").parse(text.split("---\n", 2)[-1])
    inline = [tokens[i + 1] for i, token in enumerate(tokens) if token.type == "td_open"]
    shown = ["".join(child.content for child in token.children if child.type == "text") for token in inline]
    assert all(child.type == "text" for token in inline for child in token.children)
    return [tuple(shown[i : i + 4]) for i in range(0, len(shown), 4)]


def test_a_persona_its_entry_and_its_row_come_in_one_commit(hub_server):
    ana = persona(model_revision="0123456789abcdef" + "0" * 24)
    address = ana.push_to_hub(REPO, consent=CONSENT)
    repository = hub_server.repositories[REPO]
    assert address.endswith(repository.branches["main"])
    assert repository.messages == ["initial commit", "Add persona ana"]
    assert set(repository.files()) == {".gitattributes", "ana.safetensors", "personas.json", "README.md"}
    assert Persona.from_pretrained(REPO, "ana") == ana
    assert cells(card(hub_server)) == [("ana", "org/m at 0123456789ab", "5", CONSENT)]
    assert not hub_server.leaked


def test_who_is_there_is_told_without_fetching_anybody(hub_server):
    ben = persona("ben", 1, num_samples=7)
    ben.push_to_hub(REPO, synthetic=True)
    persona().push_to_hub(REPO, consent=CONSENT, name="Ana of Oslo")
    hub_server.transfers.clear()
    listed = list_personas(REPO)
    assert hub_server.downloaded(REPO) == {"personas.json"}
    assert [(one.name, one.consent, one.synthetic) for one in listed] == [
        ("Ana of Oslo", CONSENT, False),
        ("ben", None, True),
    ]
    said = attrs.asdict(listed[1])
    assert {name: said[name] for name in ("model_id", "num_samples", "created", "encoder_fingerprint")} == {
        "model_id": "org/m",
        "num_samples": 7,
        "created": ben.created,
        "encoder_fingerprint": ben.encoder_fingerprint,
    }
    assert Persona.from_pretrained(REPO, "Ana of Oslo").name == "Ana of Oslo"
    hub_server.shutdown()
    assert list_personas(REPO, local_files_only=True) == listed


def test_one_of_the_same_name_is_replaced_and_history_stays_readable(hub_server):
    persona().push_to_hub(REPO, consent=CONSENT)
    first = hub_server.repositories[REPO].branches["main"]
    newer = persona(seed=3, num_samples=9)
    newer.push_to_hub(REPO, consent="once more, 2026-12-01")
    assert Persona.from_pretrained(REPO, "ana") == newer
    assert Persona.from_pretrained(REPO, "ana", revision=first).num_samples == 5
    assert [one.num_samples for one in list_personas(REPO)] == [9]
    assert [one.num_samples for one in list_personas(REPO, revision=first)] == [5]


@pytest.mark.parametrize(
    "arguments",
    [{}, {"consent": " "}, {"consent": "a\nb"}, {"consent": "x" * 1001}, {"consent": True}, {"consent": "\u202eon"}],
)
def test_nobody_is_published_without_a_word_on_consent(hub_server, arguments):
    with pytest.raises(PersonaError, match=r"consent: .* how that person agreed .* or say synthetic=True"):
        persona().push_to_hub(REPO, **arguments)
    with pytest.raises(PersonaError, match="a synthetic persona is of nobody who could give it"):
        persona().push_to_hub(REPO, consent=CONSENT, synthetic=True)
    assert hub_server.log == []


def test_private_means_private(hub_server, monkeypatch):
    persona().push_to_hub(REPO, consent=CONSENT, private=True)
    assert hub_server.repositories[REPO].private
    persona("ben").push_to_hub("org/public", consent=CONSENT)
    with pytest.raises(PersonaError, match="exists already and is public"):
        persona("cem").push_to_hub("org/public", consent=CONSENT, private=True)
    assert "cem.safetensors" not in hub_server.repositories["org/public"].files()
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", "/nowhere")
    for ask in (lambda: list_personas("org/personas"), lambda: Persona.from_pretrained("org/personas", "ben")):
        with pytest.raises(PersonaError, match=r"is not on the Hugging Face Hub, or is private: .* HF_TOKEN"):
            ask()


def test_what_people_wrote_into_the_card_stays(hub_server):
    persona().push_to_hub(REPO, consent=CONSENT)
    repository = hub_server.repositories[REPO]
    text = card(hub_server).replace("# Personas", "# The people of our study") + "\nAsk us anything.\n"
    repository.commit({**repository.files(), "README.md": text.encode()}, "Edit on the page")
    persona("ben").push_to_hub(REPO, synthetic=True)
    assert "# The people of our study" in card(hub_server)
    assert card(hub_server).endswith("\nAsk us anything.\n")
    assert [row[0] for row in cells(card(hub_server))] == ["ana", "ben"]
    repository.commit({**repository.files(), "README.md": b"---\nlicense: mit\n---\nOur own page."}, "Edit again")
    delete_persona(REPO, "ben")
    assert card(hub_server).startswith("---\nlicense: mit\n---\nOur own page.\n\n<!-- personas -->\n")
    assert [row[0] for row in cells(card(hub_server))] == ["ana"]


def test_two_who_publish_at_once_both_get_in(hub_server):
    hub_server.fault(r"POST .*/commit/main", before=lambda: persona("ben").push_to_hub(REPO, synthetic=True))
    persona("ana").push_to_hub(REPO, consent=CONSENT)
    assert [one.name for one in list_personas(REPO)] == ["ana", "ben"]
    assert [row[0] for row in cells(card(hub_server))] == ["ana", "ben"]
    assert hub_server.repositories[REPO].messages == ["initial commit", "Add persona ben", "Add persona ana"]


def test_when_others_never_stop_writing_it_is_said(hub_server):
    persona("ben").push_to_hub(REPO, synthetic=True)
    repository = hub_server.repositories[REPO]
    hub_server.fault(r"POST .*/commit/main", times=99, before=lambda: repository.commit(repository.files(), "Again"))
    with pytest.raises(PersonaError, match="others kept on writing to 'main' at the same moment"):
        persona().push_to_hub(REPO, consent=CONSENT)
    assert "ana.safetensors" not in repository.files()


def test_who_leaves_is_gone_from_file_list_and_card_but_not_from_history(hub_server):
    persona().push_to_hub(REPO, consent=CONSENT)
    before = hub_server.repositories[REPO].branches["main"]
    persona("ben").push_to_hub(REPO, synthetic=True)
    address = delete_persona(REPO, "ana")
    repository = hub_server.repositories[REPO]
    assert address.endswith(repository.branches["main"])
    assert set(repository.files()) == {".gitattributes", "ben.safetensors", "personas.json", "README.md"}
    assert [one.name for one in list_personas(REPO)] == ["ben"]
    assert [row[0] for row in cells(card(hub_server))] == ["ben"]
    assert CONSENT not in card(hub_server)
    with pytest.raises(PersonaError, match=r"'ana\.safetensors' of 'org/personas' does not exist on the Hugging Face"):
        Persona.from_pretrained(REPO, "ana")
    assert Persona.from_pretrained(REPO, "ana", revision=before).name == "ana"
    delete_persona(REPO, "ben")
    assert "holds no persona at present" in card(hub_server)
    assert list_personas(REPO) == []


def test_only_who_is_there_can_leave(hub_server):
    with pytest.raises(PersonaError, match=r"'org/personas' with branch 'main' is not on the Hugging Face Hub"):
        delete_persona(REPO, "ana")
    persona("ben").push_to_hub(REPO, synthetic=True)
    with pytest.raises(PersonaError, match=r"holds no persona 'ana', only: 'ben'"):
        delete_persona(REPO, "ana")
    with pytest.raises(PersonaError, match="name: "):
        delete_persona(REPO, "../ana")
    with pytest.raises(PersonaError, match="with branch 'next'"):
        delete_persona(REPO, "ben", revision="next")
    assert len(hub_server.repositories[REPO].commits) == 2


def test_a_branch_of_personas(hub_server):
    persona().push_to_hub(REPO, consent=CONSENT, revision="study-2")
    assert [one.name for one in list_personas(REPO, revision="study-2")] == ["ana"]
    with pytest.raises(PersonaError, match=r"'personas\.json' of 'org/personas' does not exist"):
        list_personas(REPO)


@pytest.mark.parametrize(
    ("index", "message"),
    [
        (b"{", "not valid JSON"),
        (b"[]", r"must be an object, got \[\]"),
        (b'{"format_version": 2, "personas": {}}', "a newer pydeper wrote it"),
        (b'{"format_version": 1, "personas": []}', "personas: must be an object"),
        (
            b'{"format_version": 1, "personas": {"ana": {}}}',
            r"personas\.'ana': must be an object with the keys consent",
        ),
        (b'{"format_version": 1, "personas": {"../ana": {}}}', "name: "),
        ({"num_samples": "5"}, r"'ana'\.num_samples: got '5'"),
        ({"num_samples": True}, r"'ana'\.num_samples: got True"),
        ({"consent": "a\u001b[2J"}, r"'ana'\.consent: got "),
        ({"created": "yesterday"}, r"'ana'\.created: must be an ISO 8601 date"),
        ({"extra": 1}, "must be an object with the keys"),
    ],
)
def test_a_list_that_is_not_sound_is_refused(hub_server, index, message):
    persona().push_to_hub(REPO, consent=CONSENT)
    repository = hub_server.repositories[REPO]
    if isinstance(index, dict):
        whole = json.loads(repository.files()["personas.json"])
        whole["personas"]["ana"].update(index)
        index = json.dumps(whole).encode()
    repository.commit({**repository.files(), "personas.json": index}, "Edit")
    with pytest.raises(PersonaError, match=message):
        list_personas(REPO)
    with pytest.raises(PersonaError, match=message):
        persona("ben").push_to_hub(REPO, synthetic=True)
    assert "ben.safetensors" not in repository.files()


def test_a_damaged_persona_is_named(hub_server):
    persona().push_to_hub(REPO, consent=CONSENT)
    repository = hub_server.repositories[REPO]
    repository.commit({**repository.files(), "ana.safetensors": b"\0" * 100}, "Edit")
    with pytest.raises(PersonaError, match=r"ana\.safetensors: "):
        Persona.from_pretrained(REPO, "ana")


def test_from_the_shell(hub_server, tmp_path, capsys):
    persona().save(tmp_path / "ana.safetensors")
    file, out = str(tmp_path / "ana.safetensors"), tmp_path / "fetched.safetensors"
    assert main(["persona", "push", file, REPO, "--consent", CONSENT]) == 0
    assert capsys.readouterr().out.startswith(f"{hub_server.url}/{REPO}/commit/")
    assert main(["persona", "push", file, REPO, "--name", "sim", "--synthetic"]) == 0
    capsys.readouterr()
    assert main(["persona", "list", REPO]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"ana  5 samples, org/m; consent: {CONSENT}",
        "sim  5 samples, org/m; synthetic",
    ]
    assert main(["persona", "fetch", REPO, "ana", "-o", str(out)]) == 0
    assert Persona.load(out) == Persona.load(file)
    assert main(["persona", "delete", REPO, "ana"]) == 0
    capsys.readouterr()
    assert main(["persona", "delete", REPO, "ana"]) == 2
    assert capsys.readouterr().err.startswith("pydeper: repository 'org/personas' holds no persona 'ana'")
    with pytest.raises(SystemExit):
        main(["persona", "push", file, REPO])
    assert "one of the arguments --consent --synthetic is required" in capsys.readouterr().err


@settings(suppress_health_check=[HealthCheck.too_slow], max_examples=200)
@given(
    st.text(st.characters(codec="utf-8"), min_size=1, max_size=60).filter(lambda s: s.strip() and is_plain_text(s))
    | st.text("`*_[]<>|~#!&;\\ab1.()-+=$:/", min_size=1, max_size=30)
    | st.sampled_from(["<b>x</b>", "[a](javascript:x)", "&amp; &#60;", "a|b", "\\|", "![](x)", "https://x.y", "<!-- x"])
)
def test_no_text_of_consent_becomes_anything_but_text(consent):
    from pydeper.persona.repository import PublishedPersona, _table

    fields = attrs.fields_dict(PublishedPersona)
    entry = PublishedPersona(**{**dict.fromkeys(fields), "name": "ana", "consent": consent.strip(), "model_id": "m"})
    ((name, _, _, shown),) = cells("---\n---\n" + _table({"ana": entry}))
    assert (name, " ".join(shown.split())) == ("ana", " ".join(consent.split()))


def test_everything_is_public():
    assert {"PublishedPersona", "delete_persona", "list_personas"} <= set(pydeper.__all__)
