"""A PostgreSQL server for one test run: Debian's programs, on a temporary folder and a socket in it."""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import attrs


def programs() -> Path | None:
    """The folder of PostgreSQL's server programs; None where they are not installed."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
    found = shutil.which("initdb")
    return folders[-1] if folders else Path(found).parent if found else None


@attrs.define
class Postgres:
    """A server with one empty database; it refuses to run as root, so it runs as somebody else then."""

    folder: Path = attrs.field(factory=lambda: Path(tempfile.mkdtemp(prefix="pydeper-pg-")))
    process: "subprocess.Popen[bytes] | None" = None

    def __attrs_post_init__(self) -> None:
        if os.geteuid() == 0:
            shutil.chown(self.folder, "postgres", "postgres")
        self._run("initdb", "--auth=trust", "--username=pydeper", "--no-sync", "-D", self.folder / "data")
        self.start()

    @property
    def url(self) -> str:
        return f"postgresql://pydeper@/postgres?host={self.folder}"

    def start(self) -> None:
        """Starts the server, and waits until it answers."""
        command = ["postgres", "-D", self.folder / "data", "-k", self.folder, "-c", "listen_addresses=", "-F"]
        self.process = subprocess.Popen(self._command(*command), **self._as_nobody_important())
        until = time.monotonic() + 60
        while subprocess.run(self._command("pg_isready", "-q", "-h", self.folder), check=False).returncode:
            assert time.monotonic() < until
            time.sleep(0.05)

    def stop(self) -> None:
        """Stops the server at once, whoever is connected."""
        assert self.process is not None
        self.process.send_signal(signal.SIGINT)
        self.process.wait(timeout=60)

    def remove(self) -> None:
        """Stops the server and removes its folder."""
        self.stop()
        shutil.rmtree(self.folder)

    def _command(self, program: str, *arguments: object) -> list[str]:
        folder = programs()
        assert folder is not None
        return [str(folder / program), *map(str, arguments)]

    def _run(self, *command: object) -> None:
        program, *arguments = command
        subprocess.run(self._command(str(program), *arguments), check=True, **self._as_nobody_important())

    def _as_nobody_important(self) -> dict[str, object]:
        user = {"user": "postgres", "group": "postgres"} if os.geteuid() == 0 else {}
        return {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": self.folder, **user}
