"""Triton kernels where there is no GPU: `conftest` then has Triton's interpreter run them on CPU tensors, one operation
after another; that they compile is seen in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys

import torch

# The same tests run the kernels for real where they can.
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")

COMPILE = """
import importlib, sys
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
module, kernel, signature, constants = sys.argv[1], sys.argv[2], eval(sys.argv[3]), eval(sys.argv[4])
source = ASTSource(getattr(importlib.import_module(module), kernel), signature, constants)
print(triton.compile(source, target=GPUTarget("cuda", 90, 32)).asm["ptx"])
"""


def ptx(module: str, kernel: str, signature: dict[str, str], constants: dict[str, object]) -> str:
    """The code of a kernel for compute capability 9.0, made in a process of its own.

    Args:
        signature: Triton's type of each argument, `constexpr` of those in `constants`.
    """
    command = [sys.executable, "-c", COMPILE, module, kernel, repr(signature), repr(constants)]
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout
