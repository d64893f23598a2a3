"""What bfloat16 costs on this processor: `python -m benchmarks.bfloat16`.

The same products of matrices in float32 and in bfloat16, and a step of Muon, which in torch rounds gradients to
bfloat16, without that rounding and with it (see `training/precision.py`). In turn, on one thread; medians are printed.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.measuring.timing import medians_in_turn
from training.evaluation.report import format_table
from training.precision import Float32InPlaceOfBFloat16, multiplies_bfloat16_fast

RUNS = 7
WIDTH = 256  # the tiny VLM's


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    rows, weight = torch.randn(4096, WIDTH), torch.randn(WIDTH, WIDTH)
    layers = [torch.nn.Linear(WIDTH, WIDTH) for _ in range(8)]
    muon = torch.optim.Muon([layer.weight for layer in layers])
    for layer in layers:
        layer.weight.grad = torch.randn(WIDTH, WIDTH)
    works: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
        "rows × matrix": (lambda: rows @ weight, product(rows.bfloat16(), weight.bfloat16())),
        "rows × transposed matrix": (lambda: rows @ weight.T, product(rows.bfloat16(), weight.bfloat16().T)),
        "step of Muon": (lambda: step_in_float32(muon), muon.step),
    }
    figures = {name: compare(*sides) for name, sides in works.items()}
    print(format_table(figures))
    fast = multiplies_bfloat16_fast(torch.device("cpu"))
    print(f"\nCPU: {torch.backends.cpu.get_cpu_capability()}; trainings use {'bfloat16' if fast else 'float32'} here")


def product(left: Tensor, right: Tensor) -> Callable[[], Tensor]:
    """A product that is computed when it is called."""
    return lambda: left @ right


def step_in_float32(muon: torch.optim.Muon) -> None:
    """A step of Muon without bfloat16."""
    with Float32InPlaceOfBFloat16():
        muon.step()


def compare(float32: Callable[[], object], bfloat16: Callable[[], object]) -> dict[str, float]:
    """Median milliseconds of the two in turn, and their ratio."""
    one, other = medians_in_turn({"float32": float32, "bfloat16": bfloat16}, RUNS).values()
    return {"float32, ms": 1000 * one, "bfloat16, ms": 1000 * other, "times as long": other / one}


if __name__ == "__main__":
    main()
