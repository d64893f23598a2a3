"""A real vLLM server on this machine, for the tests of `make test-vllm`."""

import contextlib
import os
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

PYTHON_VARIABLE = "PYDEPER_VLLM_PYTHON"
"""Names the Python of the environment that vLLM is installed in."""

_STARTUP = Path(__file__).parents[1] / "torchvision_startup"
_PATIENCE = 600  # seconds until a server is ready; it takes one or two minutes on two cores


@contextlib.contextmanager
def serving(model: Path, name: str, log: Path, *flags: str) -> Iterator[str]:
    """Serves a model, and yields the address of the API.

    Args:
        model: A folder as the Hub has it.
        name: What the model is called in requests.
        log: Where the server's output goes.
        flags: Further flags of the server.
    """
    port = _free_port()
    command = [
        *(os.environ[PYTHON_VARIABLE], "-m", "vllm.entrypoints.openai.api_server", "--model", model),
        *("--served-model-name", name, "--host", "127.0.0.1", "--port", port, "--dtype", "float32"),
        *("--max-model-len", 1024, "--max-num-seqs", 16, "--enforce-eager", *flags),
    ]
    environment = {
        **os.environ,
        "PYTHONPATH": str(_STARTUP),
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
    }
    with log.open("wb") as output:
        server = subprocess.Popen([*map(str, command)], env=environment, stdout=output, stderr=output)
        try:
            _wait_until_ready(server, f"http://127.0.0.1:{port}/health", log)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            server.terminate()
            server.wait(60)


def _wait_until_ready(server: "subprocess.Popen[bytes]", address: str, log: Path) -> None:
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline:
        assert server.poll() is None, log.read_text(errors="replace")[-4000:]
        with contextlib.suppress(urllib.error.URLError, OSError), urllib.request.urlopen(address, timeout=5):
            return
        time.sleep(1)
    raise AssertionError(f"not ready after {_PATIENCE} s:\n{log.read_text(errors='replace')[-4000:]}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
