"""Where pydeper installs without a compiler, and how large: `python -m benchmarks.installation.platforms`.

With `--report FOLDER` it also writes the figures there. For each platform pip downloads the wheels that `pydeper[cpu]`
and `pydeper[openvino]` need there, so the package index must be reachable. What is found is that the wheels exist, not
that anybody has run them: the docs name what was run.
"""

import argparse
import re
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from collections.abc import Sequence
from pathlib import Path

import attrs

from training.evaluation.report import format_table, write_report

PROJECT = Path(__file__).parents[2] / "pyproject.toml"

PYTHON = "3.11"
RUNTIMES = {"ONNX Runtime": "cpu", "OpenVINO": "openvino"}
# Tags from the newest on: pip takes a wheel for any of them.
PLATFORMS: dict[str, Sequence[str]] = {
    **{
        f"Linux {machine}": [f"manylinux_2_{minor}_{machine}" for minor in range(34, 16, -1)]
        for machine in ("x86_64", "aarch64")
    },
    "macOS 14 arm64": ["macosx_14_0_arm64"],
    "macOS 14 x86_64": ["macosx_14_0_x86_64"],
    "Windows x86_64": ["win_amd64"],
    "Windows arm64": ["win_arm64"],
}

_MISSING = re.compile(r"No matching distribution found for ([\w.-]+)")


@attrs.frozen
class Wheels:
    """The wheels of one platform.

    Attributes:
        missing: The package that has none, or None.
        downloaded: Bytes of all wheels.
        installed: Bytes of the files in them.
    """

    missing: str | None
    downloaded: int
    installed: int


def requirements(extra: str) -> list[str]:
    """Returns what pydeper with an extra depends on, as pip takes it."""
    project = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]
    return [*project["dependencies"], *project["optional-dependencies"][extra]]


def find_wheels(tags: Sequence[str], needed: Sequence[str]) -> Wheels:
    """Downloads the wheels that some requirements need on a platform, with all that these depend on."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--dest", folder]
        command += ["--only-binary", ":all:", "--implementation", "cp", "--python-version", PYTHON]
        command += [argument for tag in tags for argument in ("--platform", tag)]
        # One after another, so that the first that is missing is known by name.
        for requirement in needed:
            done = subprocess.run([*command, requirement], capture_output=True, text=True, check=False)
            if done.returncode != 0:
                missing = _MISSING.findall(done.stderr)
                if not missing:
                    raise RuntimeError(f"pip download {requirement}: {done.stderr.strip()}")
                return Wheels(missing[-1], 0, 0)
        wheels = sorted(Path(folder).glob("*.whl"))
        unpacked = 0
        for wheel in wheels:
            with zipfile.ZipFile(wheel) as archive:
                unpacked += sum(entry.file_size for entry in archive.infolist())
        return Wheels(None, sum(wheel.stat().st_size for wheel in wheels), unpacked)


def main() -> None:
    """Prints the table, and writes it where it is told to."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--report", type=Path, metavar="FOLDER", help="also write platforms.json and .md there")
    folder = parser.parse_args().report
    results, absent = {}, []
    for platform, tags in PLATFORMS.items():
        for runtime, extra in RUNTIMES.items():
            found = find_wheels(tags, requirements(extra))
            results[f"{platform}, {runtime}"] = {
                "MB to download": None if found.missing else found.downloaded / 1e6,
                "MB on disk": None if found.missing else found.installed / 1e6,
            }
            if found.missing:
                absent.append(f"{found.missing} on {platform}")
    missing = ", ".join(dict.fromkeys(absent)) or "none"
    print(format_table(results, digits=0))
    print(f"No wheels: {missing}")
    if folder:
        facts = {
            "command": "python -m benchmarks.installation.platforms --report docs/results",
            "figures": f"all wheels of pydeper's dependencies for CPython {PYTHON}; pydeper itself comes on top",
            "no wheels": missing,
        }
        write_report(folder, "platforms", results, title="Where it installs without a compiler", facts=facts)


if __name__ == "__main__":
    main()
