"""Triton kernels where there is no GPU: `conftest` then has Triton's interpreter run them on CPU tensors, one operation
after another; that they compile is seen in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from tempfile import TemporaryDirectory

import torch

# The same tests run the kernels for real where they can.
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")

COMPILE = """
import importlib, json, sys
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
module, kernel, signature, constants, divided, options = json.loads(sys.argv[1])
attributes = {(list(signature).index(name),): [["tt.divisibility", 16]] for name in divided}
source = ASTSource(getattr(importlib.import_module(module), kernel), signature, constants, attributes)
compiled = triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options)
assert compiled.asm["cubin"]
print(compiled.asm["ptx"])
"""


def ptx(
    module: str,
    kernel: str,
    signature: dict[str, str],
    constants: dict[str, object],
    divided: Sequence[str] = (),
    options: dict[str, object] | None = None,
) -> str:
    """The code of a kernel for compute capability 9.0, made in a process of its own down to machine code.

    Args:
        signature: Triton's type of each argument in their order, `constexpr` of those in `constants`.
        divided: arguments that are multiples of 16.
        options: of Triton's compiler.
    """
    given = json.dumps([module, kernel, signature, constants, divided, options or {}])
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    with TemporaryDirectory() as cache:
        environment["TRITON_CACHE_DIR"] = cache
        command = [sys.executable, "-c", COMPILE, given]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout
