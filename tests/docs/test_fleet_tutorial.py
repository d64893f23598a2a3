"""The tutorial on serving: its requests, sent to a gateway that runs as a process, are answered as it shows."""

from pathlib import Path

import httpx2

from pydeper.cli.main import main
from tests.pydeper.serve.running import serving
from tests.support.docs.pages import DOCS, Reader, blocks, commands, read

PAGE = DOCS / "tutorials/serve-a-fleet.md"


def test_the_gateway_answers_as_the_tutorial_shows(tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["serve", "keys", "create", "my-app"]) == 0
    key = capsys.readouterr().out.strip()
    requests = [block for block in blocks(read(PAGE)) if __name__.rpartition(".")[2] in (block.not_run or "")]
    assert len(requests) == 3
    with serving(tmp_path) as (_, address, _):
        reader = Reader(tmp_path, KEY=key)

        def stored() -> str:
            answer = httpx2.get(f"{address}/v1/personas", headers={"Authorization": f"Bearer {key}"})
            personas = answer.raise_for_status().json()["personas"]
            return personas[0]["id"] if personas else "none"

        for block in requests:
            for command, shown in commands(block):
                here = command.replace("http://127.0.0.1:8080", address).replace(
                    "persona_id=ID", f"persona_id={stored()}"
                )
                reader.compare(shown, reader.shell(here.replace("seq 200", "seq 20"), command), command)
