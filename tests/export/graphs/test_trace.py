"""Tracing a module: what the exporter says on the way."""

import logging

import pytest
import torch

from export.graphs.trace import trace


def test_nobody_is_told_of_libraries_that_are_not_needed(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        trace(torch.nn.Linear(3, 2), {"input": torch.zeros(2, 3)}, {"input": {0: "rows"}}, ["output"])
    assert [record.getMessage() for record in caplog.records if "torchvision" in record.getMessage()] == []
    logging.getLogger("torch.onnx._internal.exporter._registration").warning("torchvision is not installed.")
    assert "torchvision" in caplog.text  # only while tracing
