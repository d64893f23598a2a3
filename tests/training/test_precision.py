"""bfloat16 where a device is fast at it, float32 elsewhere."""

import pytest
import torch

from tests.support.training_run import read
from training.precision import Float32InPlaceOfBFloat16, bfloat16_autocast, multiplies_bfloat16_fast
from training.runs.frozen_parts import FrozenParts, load_vlm

CPU = torch.device("cpu")


@pytest.fixture(params=["DEFAULT", "AVX2", "AVX512"])
def capability(request, monkeypatch):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: request.param)
    return request.param


@pytest.mark.parametrize("wanted", [True, False])
def test_layers_compute_in_bfloat16_if_it_is_wanted_and_fast(capability, wanted):
    with bfloat16_autocast(CPU, wanted=wanted):
        found = torch.nn.Linear(4, 4)(torch.randn(2, 4)).dtype
    assert found == (torch.bfloat16 if wanted and capability == "AVX512" else torch.float32)


def test_other_devices_are_fast(capability):
    assert multiplies_bfloat16_fast(torch.device("cuda"))


def test_the_frozen_vlm_is_loaded_in_what_it_computes_in(capability, config_file):
    config = read(config_file, "stage2.bf16=true")
    tokenizer = FrozenParts.load(config).tokenizer
    assert load_vlm(config, tokenizer, CPU).model.dtype == (torch.bfloat16 if capability == "AVX512" else torch.float32)
    assert load_vlm(config, tokenizer, torch.device("cuda")).model.dtype == torch.bfloat16


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_in_place_of_bfloat16_there_is_a_copy_in_float32(dtype):
    given = torch.tensor([1.0, 2.0, 3.0], dtype=dtype)
    with Float32InPlaceOfBFloat16():
        found = given.bfloat16()
        found.mul_(2)
    assert found.dtype == torch.float32
    assert given.tolist() == [1.0, 2.0, 3.0]
    assert given.bfloat16().dtype == torch.bfloat16
