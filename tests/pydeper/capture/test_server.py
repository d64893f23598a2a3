"""The server of the capture page, over HTTP on loopback."""

import json
import socket
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import httpx
import pytest
from PIL import Image

import pydeper
from pydeper.readers import read_recordings
from tests.support.capture.command import agree, client, make_pictures, recording, serving, started


@pytest.fixture
def home(tmp_path: Path) -> Path:
    make_pictures(tmp_path / "pictures")
    return tmp_path


@pytest.fixture
def address(home: Path) -> Iterator[str]:
    with serving(started(home / "pictures", home / "ana.jsonl")) as address:
        yield address


@pytest.fixture
def page(address: str) -> Iterator[httpx.Client]:
    with client(address) as page:
        agree(page)
        yield page


def refusal(answer: httpx.Response) -> tuple[int, str]:
    assert answer.headers["content-type"] == "application/problem+json"
    content = answer.json()
    assert content["status"] == answer.status_code
    assert content["title"]
    assert content["detail"]
    return answer.status_code, content["code"]


def statuses(page: httpx.Client) -> list[str]:
    return [picture["status"] for picture in page.get("/api/session").json()["pictures"]]


def test_a_recording_is_on_disk_when_it_is_acknowledged(home: Path, page: httpx.Client) -> None:
    answer = page.put("/api/pictures/1", json=recording())
    assert answer.status_code == 200
    looks = answer.json()["fixations"]
    assert [round(sum(look["box"][::2]) / 2, 1) for look in looks] == [0.2, 0.8]
    assert [look["duration"] for look in looks] == pytest.approx([1, 1], abs=0.05)
    assert answer.json()["problem"] is None
    (sample,) = pydeper.read_samples(home / "ana.jsonl")
    assert (sample.subject, sample.description) == ("ana", "A dog, then a ball.")
    assert list(read_recordings(home / "ana.recordings.jsonl")) == [sample]
    stored = page.get("/api/pictures/1").json()
    assert stored == {"description": sample.description, "points": recording()["points"], "fixations": looks}
    assert statuses(page) == ["open", "recorded", "open", "kept back"]


def test_a_later_recording_or_skip_replaces_an_earlier_one(home: Path, page: httpx.Client) -> None:
    page.put("/api/pictures/0", json=recording("a"))
    page.put("/api/pictures/0", json=recording("b", description="Again."))
    assert [sample.description for sample in pydeper.read_samples(home / "ana.jsonl")] == ["Again."]
    assert page.post("/api/pictures/0/skip").status_code == 204
    assert statuses(page)[0] == "skipped"
    assert refusal(page.get("/api/pictures/0")) == (404, "not-recorded")
    assert not (home / "ana.jsonl").exists()


def test_the_same_recording_sent_again_is_stored_once(home: Path, page: httpx.Client) -> None:
    answers = [page.put("/api/pictures/0", json=recording("a")) for _ in range(3)]
    assert len({answer.text for answer in answers}) == 1
    assert (home / "ana.recordings.jsonl").read_text().count('"kind": "recording"') == 1
    page.put("/api/pictures/0", json=recording("a", description="Changed."))
    assert page.get("/api/pictures/0").json()["description"] == "Changed."


@pytest.mark.parametrize("points", [[], [[None, None, 0.1]], [[0.1, 0.1, 0.0], [0.9, 0.9, 0.01]]])
def test_points_without_a_stop_keep_the_text(home: Path, page: httpx.Client, points: list[list[float]]) -> None:
    answer = page.put("/api/pictures/0", json=recording(points=points)).json()
    assert answer["fixations"] == []
    assert "without a trajectory" in answer["problem"]
    assert pydeper.read_samples(home / "ana.jsonl")[0].trajectory is None


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"description": 3}, "description"),
        ({"description": "a" * 20_001}, "20001"),
        ({"points": [[0.1, 0.2]]}, "points[0]"),
        ({"points": [[0.1, 0.2, 1], [0.1, 0.2, 0.5]]}, "points[1]: time goes backwards"),
        ({"points": [[0.1, None, 1]]}, "points[0]"),
        ({"points": [[300, 200, 1]]}, "pixels"),
        ({"mode": "film"}, "mode"),
        ({"input": "eye"}, "input"),
        ({"image_size": [0, 3]}, "image_size"),
        ({"started": "yesterday"}, "started"),
        ({"attempt": "../x"}, "attempt"),
        ({"picture": "1.png"}, "picture"),
        ({"colour": 1}, "colour"),
    ],
)
def test_a_malformed_recording_is_refused_with_its_field(
    home: Path, page: httpx.Client, change: dict[str, object], named: str
) -> None:
    before = (home / "ana.recordings.jsonl").read_bytes()
    answer = page.put("/api/pictures/0", json=recording(**change))
    assert refusal(answer) == (422, "malformed")
    assert named in answer.json()["detail"]
    assert (home / "ana.recordings.jsonl").read_bytes() == before


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"a": NaN}', b"\xff", b"[" * 100_000])
def test_a_body_that_is_no_object_is_refused(page: httpx.Client, body: bytes) -> None:
    assert refusal(page.put("/api/pictures/0", content=body)) == (422, "malformed")


def test_an_empty_description_has_a_code_of_its_own(page: httpx.Client) -> None:
    assert refusal(page.put("/api/pictures/0", json=recording(description=" \n"))) == (422, "empty-description")


def test_nothing_is_recorded_before_consent(home: Path, address: str) -> None:
    with client(address) as page:
        assert refusal(page.put("/api/pictures/0", json=recording())) == (403, "consent")
        agree(page, publish=True)
        assert page.get("/api/session").json()["consent"]["publish"] is True
        assert refusal(page.post("/api/consent", json={"publish": 1, "language": "en", "text": "x"}))[0] == 422
    line = json.loads((home / "ana.recordings.jsonl").read_text().splitlines()[-1])
    assert line["statement"].endswith("recording and publication of the persona")
    assert line["text"] == "I agree."


def test_two_tabs_do_not_mix(address: str, page: httpx.Client) -> None:
    with client(address, "two") as other:
        assert refusal(other.put("/api/pictures/0", json=recording())) == (409, "another-tab")
        assert other.get("/api/session").json()["active"] is False
        assert other.post("/api/claim").status_code == 204
        assert other.put("/api/pictures/0", json=recording()).status_code == 200
        assert refusal(page.post("/api/pictures/0/skip")) == (409, "another-tab")
        assert refusal(other.post("/api/claim", headers={"X-Tab": ""})) == (422, "malformed")


def raw_answer(address: str, head: str) -> bytes:
    """What comes back for a request that a client would tidy, or end, before it sends it."""
    host, _, port = address.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port))) as raw:
        raw.sendall(f"{head}\r\nHost: {host}:{port}\r\nOrigin: {address}\r\nConnection: close\r\n\r\n".encode())
        return b"".join(iter(lambda: raw.recv(65536), b""))


def test_a_body_over_the_limit_is_refused_announced_or_in_chunks(address: str, page: httpx.Client) -> None:
    pieces = iter([*[b" " * 2**20] * 8, b" "])
    assert refusal(page.put("/api/pictures/0", content=pieces)) == (413, "too-large")
    for length in (8 * 2**20 + 1, "9" * 100):
        answer = raw_answer(address, f"PUT /api/pictures/0 HTTP/1.1\r\nX-Tab: one\r\nContent-Length: {length}")
        assert answer.startswith((b"HTTP/1.1 413", b"HTTP/1.1 400"))


def test_other_hosts_and_origins_are_refused(address: str, page: httpx.Client) -> None:
    for host in ("evil.example", "evil.example:80", "127.0.0.1.evil.example", ""):
        assert refusal(page.get("/api/session", headers={"Host": host})) == (403, "host")
    for origin in ("http://evil.example", "null", address.replace("http", "https"), address + "0"):
        assert refusal(page.post("/api/claim", headers={"Origin": origin})) == (403, "origin")
    with httpx.Client(base_url=address, trust_env=False) as stranger:
        assert refusal(stranger.post("/api/claim", headers={"X-Tab": "a"})) == (403, "origin")


@pytest.mark.parametrize(
    "path",
    [
        "/static/../app.py", "/static/..%2fapp.py", "/static/%2e%2e/app.py", "/static/index.html", "/static/",
        "/api/pictures/..%2f..%2fana.jsonl/image", "/api/pictures/-1/image", "/api/pictures/99/image",
        "/api/pictures/" + "9" * 5000, "/ana.jsonl", "//etc/passwd",
    ],
)  # fmt: skip
def test_paths_lead_to_nothing_but_the_page_and_its_pictures(address: str, path: str) -> None:
    assert raw_answer(address, f"GET {path} HTTP/1.1").startswith(b"HTTP/1.1 404")


def test_every_answer_lets_nothing_foreign_in(page: httpx.Client) -> None:
    answers = [page.get("/"), page.get("/static/none"), page.get("/api/session"), page.get("/api/pictures/0/image")]
    answers += [page.put("/"), page.get("/", headers={"Host": "x"}), page.put("/api/pictures/0", content=b"")]
    for answer in answers:
        policy = answer.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'")
        assert "unsafe" not in policy
        assert "http" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
    assert answers[0].status_code == 200
    assert {answer.headers["cache-control"] for answer in answers[2:]} == {"no-store"}


def test_a_picture_is_upright_and_as_the_browser_can_show_it(tmp_path: Path) -> None:
    folder = make_pictures(tmp_path / "pictures", 1)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 20), "red").save(folder / "turned.jpg", exif=exif)
    Image.new("RGBA", (8, 8), (0, 0, 0, 0)).save(folder / "clear.png")
    Image.new("RGB", (9, 8), "blue").save(folder / "old.tiff")
    session = started(folder, tmp_path / "ana.jsonl")
    with serving(session) as address, client(address) as page:
        for picture in page.get("/api/session").json()["pictures"]:
            answer = page.get(f"/api/pictures/{picture['index']}/image")
            assert answer.headers["content-type"] in ("image/png", "image/jpeg")
            with Image.open(BytesIO(answer.content)) as shown:
                assert shown.size == (picture["width"], picture["height"])
                assert shown.getexif().get(0x0112, 1) == 1
                assert not shown.has_transparency_data
        (folder / "0.png").unlink()
        answer = page.get("/api/pictures/0/image")
        assert refusal(answer) == (404, "no-picture")
        assert str(tmp_path) not in answer.text


def test_beyond_loopback_the_first_visit_needs_a_token_that_is_good_for_once(home: Path) -> None:
    session = started(home / "pictures", home / "ana.jsonl")
    with serving(session, host="0.0.0.0", token="secret") as address, client(address) as page:
        assert refusal(page.get("/")) == (401, "token")
        assert refusal(page.get("/?token=guess")) == (401, "token")
        assert refusal(page.get("/api/session?token=secret")) == (401, "token")
        answer = page.get("/?token=secret")
        assert answer.status_code == 200
        assert 'http-equiv="refresh" content="0;url=/"' in answer.text
        assert "HttpOnly" in answer.headers["set-cookie"]
        assert "samesite=strict" in answer.headers["set-cookie"].lower()
        assert page.get("/api/session").status_code == 200
        with client(address) as late:
            assert refusal(late.get("/?token=secret")) == (401, "token")
            assert refusal(late.get("/api/session", headers={"Cookie": "pydeper_capture=x; ="})) == (401, "token")


def test_a_page_that_shows_another_session_writes_nothing(home: Path, page: httpx.Client) -> None:
    answer = page.put("/api/pictures/0", json=recording(), headers={"X-Session": "another"})
    assert refusal(answer) == (409, "another-session")
    assert not (home / "ana.jsonl").exists()


def test_everything_can_be_deleted(home: Path, page: httpx.Client) -> None:
    page.put("/api/pictures/0", json=recording())
    assert page.delete("/api/session").status_code == 204
    assert sorted(path.name for path in home.iterdir()) == ["pictures"]
    for answer in (page.put("/api/pictures/0", json=recording()), page.post("/api/claim"), page.post("/api/persona")):
        assert refusal(answer) == (410, "deleted")
    assert refusal(page.get("/api/samples")) == (404, "not-there")


def test_no_persona_is_made_of_nothing(page: httpx.Client) -> None:
    assert refusal(page.post("/api/persona")) == (409, "no-samples")
    assert refusal(page.get("/api/persona")) == (404, "not-there")


def test_the_built_in_model_makes_a_persona_and_describes_the_picture_kept_back(tmp_path: Path) -> None:
    samples = pydeper.demo_samples()
    folder = tmp_path / "pictures"
    folder.mkdir()
    for sample in samples:
        sample.open_image().save(folder / Path(str(sample.image)).name)
    with serving(started(folder, tmp_path / "ana.jsonl")) as address, client(address) as page:
        agree(page)
        for i, sample in enumerate(samples[:4]):
            assert sample.trajectory is not None
            page.put(f"/api/pictures/{i}", json=recording(f"a{i}", description=sample.description))
        made = page.post("/api/persona").json()
        assert made["persona"] == {"name": "ana", "num_samples": 4, "model": "tiny"}
        assert made["picture"] == 4
        assert made["described"]
        assert made["plain"]
        page.put("/api/pictures/4", json=recording("a4"))
        assert page.post("/api/persona").json()["picture"] is None
        saved = page.get("/api/persona")
        assert "attachment" in saved.headers["content-disposition"]
        assert page.get("/api/samples").content == (tmp_path / "ana.jsonl").read_bytes()
    (tmp_path / "loaded.safetensors").write_bytes(saved.content)
    persona = pydeper.Persona.load(tmp_path / "loaded.safetensors")
    assert persona.num_samples == 5
