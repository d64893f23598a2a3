"""What `import pydeper` costs, beside what it avoids: `python -m benchmarks.import_time [--report FOLDER]`.

Each import runs in a process of its own, in turn, so that a slower machine slows all of them; medians are reported.
"""

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

from pydeper.console import write_any_text
from training.evaluation.report import format_table, write_report

RUNS = 7
STATEMENTS = {
    "import pydeper": "import pydeper",
    "pydeper.describe, looked up": "import pydeper; pydeper.describe",
    "model loaded (built-in)": "import pydeper; pydeper.DeperModel.from_pretrained('tiny')",
    "import onnxruntime": "import onnxruntime",
    "import torch": "import torch",
    "import transformers, Qwen2-VL": "from transformers import Qwen2VLForConditionalGeneration",
}
_PROGRAM = """
import json, resource, sys, time
start = time.perf_counter()
{statement}
seconds = time.perf_counter() - start
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps([seconds, peak, len(sys.modules)]))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--report", type=Path, metavar="FOLDER", help="also write import-time.json and .md there")
    folder = parser.parse_args().report
    rows: dict[str, list[list[float]]] = {name: [] for name in STATEMENTS}
    for _ in range(RUNS):
        for name, statement in STATEMENTS.items():
            program = _PROGRAM.format(statement=statement)
            done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
            rows[name].append(json.loads(done.stdout))
    medians = {
        name: [statistics.median(column) for column in zip(*columns, strict=True)] for name, columns in rows.items()
    }
    base = medians["import pydeper"][0]
    results = {
        name: {"seconds": seconds, "times import pydeper": seconds / base, "peak MiB": peak, "modules": int(modules)}
        for name, (seconds, peak, modules) in medians.items()
    }
    print(format_table(results))
    if folder:
        facts = {
            "command": "python -m benchmarks.import_time --report docs/results",
            "figures": f"medians of {RUNS} processes each, in turn, with a warm file cache",
        }
        write_report(folder, "import-time", results, title="What importing costs", facts=facts)


if __name__ == "__main__":
    write_any_text()
    main()
