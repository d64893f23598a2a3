"""A repository of personas on the Hugging Face Hub: who is in it, how they came to be there, and how they leave.

Beside one ``NAME.safetensors`` a persona it holds ``personas.json``, which says of each what its file says and how the
person consented, and a ``README.md`` with the same as a table. All three change in one commit.
"""

import json
import re
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import attrs

from pydeper import hub
from pydeper.errors import PersonaError
from pydeper.untrusted import check_format_version, is_plain_name, is_plain_text, parse_json, shown

INDEX = "personas.json"
INDEX_FORMAT_VERSION = 1
CARD = "README.md"
SUFFIX = ".safetensors"

_MAX_CONSENT = 1000
_MAX_FILE = 16 * 1024 * 1024
_ATTEMPTS = 5
_BEGIN, _END = "<!-- personas -->", "<!-- /personas -->"
_CARD = """\
---
library_name: pydeper
tags:
- deper
- personalization
- image-captioning
---

# Personas

Each file here is one persona: 384 numbers, the mean of a person's subject embeddings (DEPER, arXiv 2512.06662), which
steer a vision-language model to describe images as that person would. No image, text or gaze of the person is in it.

```python
import pydeper

for published in pydeper.list_personas("{repo_id}"):
    print(published.name, published.model_id)
persona = pydeper.Persona.from_pretrained("{repo_id}", published.name)
```

A persona is drawn from how a person looks and speaks, and can tell that person from others: it is personal data. Use
one only as its person has agreed to; `pydeper.delete_persona("{repo_id}", name)` removes one who no longer does.

"""


@attrs.frozen(kw_only=True)
class PublishedPersona:
    """What a repository's index says of one persona.

    Attributes:
        name: What `Persona.from_pretrained` takes.
        consent: How the person agreed to the publication; None: there is no such person, the persona is synthetic.
        model_id: The model that made it.
        model_revision: That model's commit on the Hub, or None.
        encoder_fingerprint: The persona encoder that made it; only models with the same one can use it.
        num_samples: How many samples it is the mean of.
        created: When it was made, with its time zone.
        pydeper_version: The version of pydeper that made it.

    Examples:
        >>> from pydeper import Persona, demo_samples, list_personas
        >>> ana = Persona.from_samples(demo_samples("ana"), model="tiny")
        >>> address = ana.push_to_hub("org/personas", consent="written consent, 2026-11-22")
        >>> [ana] = list_personas("org/personas")
        >>> ana.consent, ana.model_id, ana.num_samples
        ('written consent, 2026-11-22', 'tiny', 5)
    """

    name: str
    consent: str | None
    model_id: str
    model_revision: str | None
    encoder_fingerprint: str
    num_samples: int
    created: datetime
    pydeper_version: str

    @property
    def synthetic(self) -> bool:
        """Whether the persona is of nobody: simulated, or a mixture that stands for no person.

        Examples:
            >>> from pydeper import Persona, demo_samples, list_personas
            >>> ana = Persona.from_samples(demo_samples("ana"), model="tiny")
            >>> address = ana.push_to_hub("org/personas", synthetic=True)
            >>> [persona.synthetic for persona in list_personas("org/personas")]
            [True]
        """
        return self.consent is None


def list_personas(
    repo_id: str, *, revision: str | None = None, local_files_only: bool = False
) -> list[PublishedPersona]:
    """Tells which personas a Hugging Face Hub repository holds; fetches its index, and no persona.

    Args:
        repo_id: The repository, as in ``"org/personas"``.
        revision: A branch, tag or commit; None is the main branch.
        local_files_only: Use the local cache alone, without any connection.

    Returns:
        The personas in the order of their names.

    Raises:
        PersonaError: The index cannot be had, or is malformed.

    Examples:
        >>> from pydeper import Persona, demo_samples, list_personas
        >>> ana = Persona.from_samples(demo_samples("ana"), model="tiny")
        >>> address = ana.push_to_hub("org/personas", synthetic=True)
        >>> [persona.name for persona in list_personas("org/personas")]
        ['ana']
    """
    check_repo_id(repo_id)
    path = hub.fetch_file(repo_id, INDEX, revision=revision, local_files_only=local_files_only, error=PersonaError)
    return list(_parse(_read_file(path), f"{INDEX} of {repo_id!r}").values())


def publish_persona(entry: PublishedPersona, data: bytes, repo_id: str, *, private: bool, revision: str | None) -> str:
    """Writes a persona's file and its entry in the index: see `Persona.push_to_hub`.

    Args:
        entry: What the index says of it.
        data: The content of its file.
        repo_id: The repository.
        private: Whether a repository that has to be made is private.
        revision: The branch; None is the main branch.

    Returns:
        The address of the commit.
    """
    file = file_name(entry.name)
    branch = revision or hub.MAIN
    there = hub.make_repository(repo_id, branch=branch, private=private, error=PersonaError)
    return _change(
        repo_id,
        branch,
        there,
        lambda index: {**index, entry.name: entry},
        add={file: data},
        message=f"Add persona {entry.name}",
    )


def delete_persona(repo_id: str, name: str, *, revision: str | None = None) -> str:
    """Removes a persona from a Hugging Face Hub repository: its file, its entry in the index and its row in the card.

    **The repository's history still holds it**, for everybody who can read the repository, as do the copies of those
    who fetched it before. Where a person asks to be forgotten, go on with the Hub's own means, which cannot be undone:
    `HfApi.super_squash_history` for every branch, deletion of the tags, then `HfApi.permanently_delete_lfs_files` for
    the file; or delete the whole repository. Nobody can call back what others have fetched.

    Args:
        repo_id: The repository, as in ``"org/personas"``.
        name: The persona's name there.
        revision: The branch; None is the main branch.

    Returns:
        The address of the commit.

    Raises:
        PersonaError: There is no such persona or repository, or the Hub refused.

    Examples:
        >>> from pydeper import Persona, delete_persona, demo_samples, list_personas
        >>> ana = Persona.from_samples(demo_samples("ana"), model="tiny")
        >>> address = ana.push_to_hub("org/personas", synthetic=True)
        >>> delete_persona("org/personas", "ana")
        'https://huggingface.co/org/personas/commit/...'
        >>> list_personas("org/personas")
        []
    """
    check_repo_id(repo_id)
    file = file_name(name)
    branch = revision or hub.MAIN
    there = hub.read_branch(repo_id, branch, error=PersonaError)
    if there is None:
        raise PersonaError(
            f"repository {repo_id!r} with branch {branch!r} is not on the Hugging Face Hub, or is private: check the "
            "spelling, and log in with `hf auth login` or set HF_TOKEN"
        )

    def without(index: Mapping[str, PublishedPersona]) -> dict[str, PublishedPersona]:
        if name not in index:
            known = ", ".join(map(repr, index)) or "none"
            raise PersonaError(f"repository {repo_id!r} holds no persona {name!r}, only: {known}")
        return {other: entry for other, entry in index.items() if other != name}

    return _change(repo_id, branch, there, without, delete=(file,), message=f"Remove persona {name}")


def check_repo_id(repo_id: str) -> None:
    """Refuses what is not a Hub id.

    Raises:
        PersonaError: It is not.
    """
    if not hub.is_repo_id(repo_id):
        raise PersonaError(f"repo_id: must be of the form 'org/name', got {repo_id!r}")


def file_name(name: str) -> str:
    """Returns the file of the persona `name` in a repository.

    Raises:
        PersonaError: A persona cannot be called that on the Hub.
    """
    if not re.fullmatch(r"\w[\w .-]{0,95}", name) or ".." in name or not is_plain_name(name + SUFFIX):
        raise PersonaError(
            f"name: on the Hub a persona's name is 1 to 96 letters, digits, spaces, '.', '_' or '-', starting with a "
            f"letter or digit, and no device of Windows, got {shown(name)}"
        )
    return name + SUFFIX


def _change(
    repo_id: str,
    branch: str,
    there: hub.Branch,
    change: Callable[[Mapping[str, PublishedPersona]], Mapping[str, PublishedPersona]],
    *,
    add: Mapping[str, bytes] | None = None,
    delete: tuple[str, ...] = (),
    message: str,
) -> str:
    """Commits a change with the index and the card that belong to it; anew where somebody else was faster."""
    for _ in range(_ATTEMPTS):
        old = _read(repo_id, INDEX, there)
        index = change(_parse(old, f"{INDEX} of {repo_id!r}") if old is not None else {})
        index = dict(sorted(index.items()))
        card = _card(_read(repo_id, CARD, there), repo_id, index)
        made = hub.commit(
            repo_id,
            branch=branch,
            parent=there.commit,
            add={**(add or {}), INDEX: _to_json(index), CARD: card.encode()},
            delete=[path for path in delete if path in there.files],
            message=message,
            error=PersonaError,
        )
        if made is not None:
            return made.url
        there = hub.read_branch(repo_id, branch, error=PersonaError) or there
    raise PersonaError(f"repository {repo_id!r}: others kept on writing to {branch!r} at the same moment: try again")


def _read(repo_id: str, file: str, there: hub.Branch) -> bytes | None:
    if file not in there.files:
        return None
    path = hub.fetch_file(repo_id, file, revision=there.commit, local_files_only=False, error=PersonaError)
    return _read_file(path)


def _read_file(path: Path) -> bytes:
    with path.open("rb") as file:
        data = file.read(_MAX_FILE + 1)
    if len(data) > _MAX_FILE:
        raise PersonaError(f"{path}: is larger than {_MAX_FILE} bytes, which no {path.name} of personas is")
    return data


def checked_consent(consent: str | None, synthetic: bool) -> str | None:
    """Returns how a person consented to be published, or None for a persona of nobody.

    Raises:
        PersonaError: Neither is said, or both are, or the text is not one line.
    """
    if synthetic:
        if consent is not None:
            raise PersonaError("consent: a synthetic persona is of nobody who could give it: give one of the two")
        return None
    if not isinstance(consent, str) or not consent.strip() or len(consent) > _MAX_CONSENT or not is_plain_text(consent):
        raise PersonaError(
            f"consent: a persona is drawn from a person's gaze and words, so say in one line (up to {_MAX_CONSENT} "
            "characters) how that person agreed to its publication, as in consent='written consent, 2026-11-22'; or "
            f"say synthetic=True, if there is no such person. Got {shown(consent)}"
        )
    return consent.strip()


def _to_json(index: Mapping[str, PublishedPersona]) -> bytes:
    def entry(published: PublishedPersona) -> dict[str, Any]:
        table = attrs.asdict(published)
        del table["name"]
        return {**table, "created": published.created.isoformat()}

    whole = {
        "format_version": INDEX_FORMAT_VERSION,
        "personas": {name: entry(published) for name, published in index.items()},
    }
    return (json.dumps(whole, indent=2, ensure_ascii=False) + "\n").encode()


def _parse(data: bytes, where: str) -> dict[str, PublishedPersona]:
    try:
        whole = parse_json(data, PersonaError)
        if not isinstance(whole, dict):
            raise PersonaError(f"must be an object, got {shown(whole)}")
        check_format_version(
            whole.get("format_version"), INDEX_FORMAT_VERSION, "indexes of personas", _AGAIN, PersonaError
        )
    except PersonaError as error:
        raise PersonaError(f"{where}: {error}") from error.__cause__
    personas = whole.get("personas")
    if not isinstance(personas, dict):
        raise PersonaError(f"{where}: personas: must be an object, got {shown(personas)}")
    return {name: _entry(name, entry, f"{where}: personas.{shown(name)}") for name, entry in sorted(personas.items())}


_AGAIN = "publish one of its personas anew"
_FIELDS: dict[str, type | tuple[type, ...]] = {
    "consent": (str, type(None)),
    "model_id": str,
    "model_revision": (str, type(None)),
    "encoder_fingerprint": str,
    "num_samples": int,
    "created": str,
    "pydeper_version": str,
}


def _entry(name: str, entry: object, where: str) -> PublishedPersona:
    file_name(name)
    if not isinstance(entry, dict) or set(entry) != set(_FIELDS):
        raise PersonaError(f"{where}: must be an object with the keys {', '.join(_FIELDS)}")
    for field, kind in _FIELDS.items():
        value = entry[field]
        if not isinstance(value, kind) or isinstance(value, bool) or not is_plain_text(str(value)):
            raise PersonaError(f"{where}.{field}: got {shown(value)}, which no persona has")
    try:
        created = datetime.fromisoformat(entry["created"])
    except ValueError as error:
        raise PersonaError(
            f"{where}.created: must be an ISO 8601 date and time, got {shown(entry['created'])}"
        ) from error
    return PublishedPersona(**{**entry, "name": name, "created": created})


def _card(present: str | bytes | None, repo_id: str, index: Mapping[str, PublishedPersona]) -> str:
    """Returns the card with its table of personas anew; what people wrote around it stays as it is."""
    section = f"{_BEGIN}\n{_table(index)}\n{_END}"
    if present is None:
        return _CARD.format(repo_id=repo_id) + section + "\n"
    text = present.decode("utf-8", "replace") if isinstance(present, bytes) else present
    before, begin, rest = text.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if begin and end:
        return before + section + after
    return f"{text.rstrip()}\n\n{section}\n"


def _table(index: Mapping[str, PublishedPersona]) -> str:
    rows = ["| persona | made by | samples | consent |", "|---|---|---|---|"]
    for published in index.values():
        made_by = published.model_id + (f" at {published.model_revision[:12]}" if published.model_revision else "")
        consent = "synthetic: of nobody" if published.consent is None else published.consent
        cells = (published.name, made_by, str(published.num_samples), consent)
        rows.append("| " + " | ".join(map(_cell, cells)) + " |")
    return "\n".join(rows) if index else "This repository holds no persona at present."


def _cell(text: str) -> str:
    """Escapes what Markdown or HTML would make something of."""
    return re.sub(r"([\\`*_\[\]<>|~#!&$])", r"\\\1", text)
