"""The files in deploy/ fit together, the gateway, and the clone; `make lint-deploy` lints them."""

import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
import tomllib
import urllib.error
import urllib.request
import venv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.paths import ROOT

DEPLOY = ROOT / "deploy"
DOCKERFILE = (DEPLOY / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))
MANIFESTS = sorted((DEPLOY / "kubernetes").glob("*.yaml"))


def lines(instruction: str) -> list[str]:
    return re.findall(rf"^{instruction} +(.+?) *$", DOCKERFILE, flags=re.M)


def copied() -> list[str]:
    """What the Dockerfile copies out of the clone."""
    return [word for line in lines("COPY") if "--from" not in line for word in line.split()[:-1]]


def start_command() -> list[str]:
    return [*json.loads(lines("ENTRYPOINT")[0]), *json.loads(lines("CMD")[0])]


def objects(kind: str) -> list[dict[str, Any]]:
    found = [each for path in MANIFESTS for each in yaml.safe_load_all(path.read_text(encoding="utf-8"))]
    return [each for each in found if each.get("kind") == kind]


def named(kind: str, name: str) -> dict[str, Any]:
    (found,) = (each for each in objects(kind) if each["metadata"]["name"] == name)
    return found


def container(name: str) -> dict[str, Any]:
    (found,) = named("Deployment", name)["spec"]["template"]["spec"]["containers"]
    return dict(found)


def gateway_environments() -> list[dict[str, str]]:
    """What compose and Kubernetes set for the gateway; what comes from elsewhere has a stand-in."""
    composed = {name: re.sub(r"\$\{.*?\}", "x", value) for name, value in service("gateway")["environment"].items()}
    database = {"PYDEPER_SERVE_DATABASE": "postgresql://pydeper@postgres/pydeper"}
    return [composed, {each["name"]: each.get("value", "x") for each in container("gateway")["env"]} | database]


def service(name: str) -> dict[str, Any]:
    return dict(COMPOSE["services"][name])


# --- the image


def test_the_image_is_built_from_what_is_there_and_sees_nothing_else() -> None:
    assert len(copied()) > 3
    assert all((ROOT / path).exists() for path in copied())
    ignored = (DEPLOY / "Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    assert "*" in ignored
    assert {line[1:] for line in ignored if line.startswith("!")} == {*copied()}


def test_the_image_runs_as_nobody_in_particular_and_checks_its_health() -> None:
    assert lines("USER") == ["10001:10001"]
    pod = named("Deployment", "gateway")["spec"]["template"]["spec"]["securityContext"]
    assert (pod["runAsNonRoot"], pod["runAsUser"]) == (True, 10001)
    (port,) = lines("EXPOSE")
    assert f"127.0.0.1:{port}/healthz" in lines("HEALTHCHECK")[0]
    assert start_command()[-2:] == ["--port", port]


def test_the_image_installs_extras_that_exist_and_starts_a_command_that_does() -> None:
    from pydeper.cli.parser import parser

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (extras,) = re.findall(r'"\.\[(.+?)\]"', DOCKERFILE)
    assert {*extras.split(",")} <= {*project["optional-dependencies"]}
    program, *arguments = start_command()
    assert program in project["scripts"]
    assert parser().parse_args(arguments).host == "0.0.0.0"


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """The folder with the programs of an empty environment, into which was installed what the image installs."""
    context = tmp_path / "context"
    context.mkdir()
    for path in copied():
        if (ROOT / path).is_dir():
            shutil.copytree(ROOT / path, context / path, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / path, context / path)
    venv.create(tmp_path / "environment", with_pip=True)
    (install,) = re.findall(r"pip (install .+)", DOCKERFILE)
    pip = [str(tmp_path / "environment/bin/python"), "-m", "pip", *shlex.split(install)]
    done = subprocess.run(pip, cwd=context, capture_output=True, text=True, env=without_python())
    assert done.returncode == 0, done.stderr
    return tmp_path / "environment/bin"


def without_python() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="the image is one of Linux")
def test_the_start_command_serves_in_an_empty_environment_and_ends_when_told(installed: Path, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    program, *arguments = start_command()
    arguments[arguments.index("--port") + 1] = port
    data = tmp_path / "data"
    data.mkdir()
    log = (tmp_path / "log").open("w+")
    process = subprocess.Popen(
        [str(installed / program), *arguments], cwd=data, stdout=log, stderr=log,
        env=without_python() | {"PYDEPER_MODEL": "tiny"},
    )  # fmt: skip
    try:
        answers = dict(answers_of(f"http://127.0.0.1:{port}", process))
        assert answers["/readyz"] == 200, Path(log.name).read_text()
        assert answers["/metrics"] == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) in (0, -signal.SIGTERM)  # uvicorn passes the signal on when all is closed
    finally:
        process.kill()
        process.wait()
        log.close()
    assert [*data.iterdir()]  # the database, where the image has its volume


def answers_of(address: str, process: "subprocess.Popen[bytes]") -> Iterator[tuple[str, int]]:
    """Asks the probes' addresses, the first of them until it answers that the gateway is ready."""
    for path in ("/readyz", "/healthz", "/metrics"):
        while process.poll() is None:
            try:
                with urllib.request.urlopen(address + path, timeout=10) as answer:
                    yield path, answer.status
                    break
            except (urllib.error.URLError, ConnectionError):
                time.sleep(0.1)


# --- several machines


@pytest.mark.parametrize("environment", gateway_environments(), ids=["compose", "kubernetes"])
def test_the_gateway_knows_every_setting(environment: dict[str, str]) -> None:
    from pydeper.serve.settings import Settings, from_environment

    settings = from_environment(environment)
    assert settings.database.startswith("postgresql://pydeper")
    grace = (
        int(service("gateway")["stop_grace_period"].removesuffix("s")),
        named("Deployment", "gateway")["spec"]["template"]["spec"]["terminationGracePeriodSeconds"],
    )
    assert min(grace) >= Settings().deadline_seconds + Settings().upload_seconds


def test_probes_and_scaling_ask_for_what_the_gateway_has() -> None:
    from pydeper.serve.app import make_app
    from pydeper.serve.metrics import Metrics
    from pydeper.serve.settings import Settings

    paths = make_app(Settings()).openapi()["paths"]
    probes = [container("gateway")[f"{kind}Probe"]["httpGet"]["path"] for kind in ("startup", "readiness", "liveness")]
    annotations = named("Deployment", "gateway")["spec"]["template"]["metadata"]["annotations"]
    assert {*probes, annotations["prometheus.io/path"]} <= {*paths}
    (metric,) = named("HorizontalPodAutoscaler", "gateway")["spec"]["metrics"]
    name = metric["pods"]["metric"]["name"]
    assert f"\n{name} " in Metrics().text().decode()
    adapter = yaml.safe_load((DEPLOY / "kubernetes/prometheus-adapter.yaml").read_text(encoding="utf-8"))
    assert adapter["rules"]["custom"][0]["seriesQuery"].startswith(f"{name}{{")


def test_only_the_gateway_reaches_vllm_and_the_database() -> None:
    assert COMPOSE["networks"]["back"]["internal"]
    assert [name for name in COMPOSE["services"] if "ports" in service(name)] == ["gateway"]
    assert all(port.startswith("127.0.0.1:") for port in service("gateway")["ports"])
    (policy,) = objects("NetworkPolicy")
    (rule,) = policy["spec"]["ingress"]
    (sender,) = rule["from"]
    assert sender["podSelector"]["matchLabels"] == named("Deployment", "gateway")["spec"]["selector"]["matchLabels"]
    assert policy["spec"]["podSelector"]["matchLabels"] == container_labels("vllm")


def container_labels(name: str) -> dict[str, str]:
    return dict(named("Deployment", name)["spec"]["selector"]["matchLabels"])


@pytest.mark.parametrize("name", ["gateway", "vllm"])
def test_selectors_find_the_pods_and_vllm_takes_embeddings(name: str) -> None:
    deployment = named("Deployment", name)
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert container_labels(name).items() <= labels.items()
    assert named("Service", name)["spec"]["selector"].items() <= labels.items()
    assert container(name)["resources"]["limits"]["memory"]
    assert "--enable-prompt-embeds" in container("vllm")["args"]
    assert "--enable-prompt-embeds" in service("vllm")["command"]


def test_the_autoscaler_has_the_gateways_replicas_to_itself() -> None:
    target = named("HorizontalPodAutoscaler", "gateway")["spec"]["scaleTargetRef"]
    assert (target["kind"], target["name"]) == ("Deployment", "gateway")
    assert "replicas" not in named("Deployment", "gateway")["spec"]


def test_everything_is_applied_but_the_values_of_the_adapters_chart() -> None:
    (kustomization,) = objects("Kustomization")
    applied = {*kustomization["resources"], "kustomization.yaml", "prometheus-adapter.yaml"}
    assert applied == {path.name for path in MANIFESTS}
    spaces = {each["metadata"].get("namespace") for kind in ("Deployment", "Service") for each in objects(kind)}
    assert spaces == {"pydeper"} == {each["metadata"]["name"] for each in objects("Namespace")}


def test_the_example_of_an_env_file_names_what_compose_asks_for() -> None:
    asked = {*re.findall(r"\$\{(\w+)", (DEPLOY / "compose.yaml").read_text(encoding="utf-8"))}
    example = re.findall(r"^(\w+)=", (DEPLOY / "example.env").read_text(encoding="utf-8"), flags=re.M)
    assert {*example} == asked
