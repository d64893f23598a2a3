"""`pydeper doctor --benchmark`: what is measured, what is recommended, and what is said where nothing can be."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pydeper import BundleError
from pydeper.cli.benchmark import benchmark_data, benchmark_text
from pydeper.cli.main import main
from pydeper.speed.compare import Comparison, Measured, compare_settings
from pydeper.speed.measure import Settings, Speed

RUNTIMES = ["onnxruntime", "openvino"]


@pytest.fixture(scope="module")
def told() -> dict[str, Any]:
    """What the command says of the built-in model, as JSON."""
    done = subprocess.run(
        [sys.executable, "-m", "pydeper", "doctor", "--benchmark", "tiny", "--json"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "measuring onnxruntime ..." in done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_every_runtime_is_measured(told: dict[str, Any]) -> None:
    benchmark = told["benchmark"]
    assert (benchmark["model"], benchmark["cores"] >= 1, bool(benchmark["cpu"])) == ("tiny", True, True)
    by_themselves = [each for each in benchmark["measured"] if each["settings"]["threads"] is None]
    assert [each["settings"]["runtime"] for each in by_themselves][:2] == RUNTIMES
    for each in benchmark["measured"]:
        speed = each["speed"]
        assert each["failure"] == ""
        assert speed["precision"] == "fp32"
        assert min(speed["load_seconds"], speed["first_token_seconds"], speed["tokens_per_second"]) > 0
        assert speed["peak_memory_bytes"] is None or speed["peak_memory_bytes"] > 20 * 2**20


def test_the_best_settings_are_among_the_measured(told: dict[str, Any]) -> None:
    benchmark = told["benchmark"]
    assert benchmark["best"] in [each["settings"] for each in benchmark["measured"]]
    runtime = benchmark["best"]["runtime"]
    assert benchmark["advice"][0] == f"take runtime: {runtime} (runtime={runtime!r}, or PYDEPER_RUNTIME={runtime})"
    # One change each beside the fastest runtime by itself.
    changed = [*[each["settings"] for each in benchmark["measured"][2:]], *benchmark["skipped"]]
    assert all((each["threads"] is not None) + each["large_pages"] == 1 for each in changed)


def test_the_checks_come_as_json_too(told: dict[str, Any]) -> None:
    assert told["to_fix"] == 0
    assert all(check["ok"] for check in told["checks"])
    assert any(check["message"].startswith("runtime: onnxruntime 1.") for check in told["checks"])


def test_without_a_benchmark_there_is_none_in_the_json(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PYDEPER_MODEL", str(tmp_path))
    assert main(["doctor", "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert told.keys() == {"checks", "to_fix"}
    assert [check["message"][:14] for check in told["checks"] if not check["ok"]] == ["default model:"]


def test_with_no_time_left_each_runtime_is_measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    seen: list[Settings] = []
    found = compare_settings("tiny", seconds=0, tokens=3, progress=seen.append)
    assert [each.settings for each in found.measured] == seen == [Settings("onnxruntime")]
    assert found.best == seen[0]
    assert all(each.runtime == "onnxruntime" for each in found.skipped)
    assert os.environ.get("GLIBC_TUNABLES") is None


def test_a_model_that_is_not_there_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(BundleError, match="is not a bundle"):
        compare_settings(str(tmp_path))
    assert main(["doctor", "--benchmark", str(tmp_path)]) == 2
    assert f"pydeper: {tmp_path}" in capsys.readouterr().err


# --- the table and the advice, from figures that are given


def speed(first: float, rate: float | None, memory: int | None = 3 << 30) -> Speed:
    return Speed("int8", 1.5, first, rate, memory)


def comparison(*measured: Measured, best: Settings | None, skipped: tuple[Settings, ...] = ()) -> Comparison:
    return Comparison("org/model", "A processor, avx2", 4, measured, skipped, best)


def test_the_table_has_a_row_for_each_and_says_what_failed() -> None:
    best = Settings("onnxruntime", threads=2, large_pages=True)
    text = benchmark_text(
        comparison(
            Measured(Settings("onnxruntime"), speed(4, 10)),
            Measured(Settings("openvino"), None, "openvino: cannot run the operators X"),
            Measured(best, speed(2, 20)),
            Measured(Settings("onnxruntime", "int4"), speed(2, None, None)),
            best=best,
            skipped=(Settings("onnxruntime", "fp16", 1),),
        )
    )
    lines = text.splitlines()
    assert lines[0] == "benchmark of org/model on A processor, avx2; 4 cores"
    assert lines[2].split() == ["onnxruntime", "1.50", "s", "4.000", "s", "10.0", "3.0", "GiB"]
    assert lines[3].split("  ")[1:3] == ["openvino", ""]
    assert lines[3].endswith("failed: openvino: cannot run the operators X")
    assert lines[5].split()[-2:] == ["-", "-"]
    assert "  not measured, since the time was up: onnxruntime, fp16, 1 thread" in lines
    assert "  take threads: 2 (threads=2, or --threads 2)" in lines
    assert "  take precision: int8, the model's own" in lines
    assert (
        "  take large pages: start the process with GLIBC_TUNABLES=glibc.malloc.hugetlb=1 in its environment" in lines
    )


def test_another_precision_is_told_and_not_taken() -> None:
    own, int4 = Settings("openvino"), Settings("openvino", "int4")
    found = comparison(Measured(own, speed(2, 63 / 2)), Measured(int4, speed(1, 63)), best=own)
    data = benchmark_data(found)
    assert data["advice"][-1] == "in int4 a description takes 0.50 times as long, and is somewhat another"
    assert json.loads(json.dumps(data))["best"]["precision"] is None


def test_where_nothing_ran_there_is_no_advice() -> None:
    found = comparison(Measured(Settings("openvino"), None, "no memory"), best=None)
    assert "ran with none of these settings" in benchmark_text(found)
    assert benchmark_data(found)["best"] is None
