"""Errors of memory are told from defects, with PyTorch's real errors."""

from __future__ import annotations

import resource
import subprocess
import sys

import pytest
import torch

from maskrcnn.training.memory import is_out_of_memory

LIMITED = """
import resource
import torch
from maskrcnn.training.memory import is_out_of_memory
held = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (held + (64 << 20), -1))
try:
    torch.empty(1 << 30, dtype=torch.uint8)
except RuntimeError as error:
    print(is_out_of_memory(error))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the limit of memory is Linux's")
def test_a_tensor_that_does_not_fit_into_the_machine() -> None:
    assert resource.RLIMIT_AS
    ran = subprocess.run([sys.executable, "-c", LIMITED], capture_output=True, text=True, check=True)
    assert ran.stdout == "True\n"


def test_a_layer_that_one_dnn_cannot_set_up_lacks_memory() -> None:
    """The error of a training step under `ulimit -v`, where the allocator is not what fails."""
    assert is_out_of_memory(RuntimeError("could not create a primitive"))


def test_defects_are_not_taken_for_too_little_memory() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.ones(2, 3) @ torch.ones(2, 3)
    assert not is_out_of_memory(caught.value)
    assert not is_out_of_memory(RuntimeError("could not create a primitive descriptor for a convolution"))
