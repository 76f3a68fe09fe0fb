"""Which form of an operation, which precision and which compilation suit a device. They are chosen here alone."""

from __future__ import annotations

import os
import sysconfig
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from shutil import which
from typing import Any, Literal, ParamSpec, TypeVar

import torch
from torch import Tensor

Precision = Literal["auto", "fp32", "bf16"]
P = ParamSpec("P")
R = TypeVar("R")
SHAPES = 64  # for which a function may be compiled before it runs uncompiled


def has_kernels(tensor: Tensor) -> bool:
    """Whether the Triton kernels of this folder can run on the device of the tensor."""
    return tensor.is_cuda and triton_works()


def static_shapes(tensor: Tensor) -> bool:
    """Whether the sizes of results must not depend on values: on a GPU the host would have to wait for the device, and
    a compiler would have to break the graph.

    On a CPU it costs nothing to look at values, and only what is needed is computed.
    """
    return tensor.is_cuda or torch.compiler.is_compiling()


def resolve_precision(precision: Precision, device: torch.device) -> torch.dtype:
    """The dtype of the network's arithmetic.

    `auto` is bfloat16 where the processor multiplies it faster than float32.
    """
    if precision == "auto":
        if device.type == "cuda":
            faster = torch.cuda.is_bf16_supported(including_emulation=False)
        else:
            faster = device.type == "cpu" and _bf16_pays()
        return torch.bfloat16 if faster else torch.float32
    return torch.bfloat16 if precision == "bf16" else torch.float32


def _bf16_pays() -> bool:
    """Whether the CPU multiplies bfloat16 faster than float32: by tiles (AMX), or by AVX512-BF16 at AMD's rate.

    Xeons with tiles have AVX512-BF16 too, at half the rate of float32 (measured on one whose hypervisor hides the
    tiles). AVX512-FP16 tells them apart: they have it, and AMD's processors up to Zen 5 do not. The choice follows from
    the instruction set and not from a measurement, so that a machine gives the same results every day.
    """
    if not hasattr(torch.cpu, "get_capabilities"):  # an older torch, which cannot tell them apart
        return torch.cpu._is_amx_tile_supported()
    can = torch.cpu.get_capabilities()
    return bool(can.get("amx_bf16") or (can.get("avx512_bf16") and not can.get("avx512_fp16")))


def in_precision(precision: Precision, device: torch.device) -> AbstractContextManager[Any]:
    """The context in which a network computes in that precision. Boxes and losses stay float32."""
    dtype = resolve_precision(precision, device)
    return torch.autocast(device.type, torch.bfloat16, enabled=dtype == torch.bfloat16)


def compiled(function: Callable[P, R], device: torch.device) -> Callable[P, R]:
    """The compiled function. It is compiled for each shape of its tensors, and on CUDA replayed as one graph."""
    run = torch.compile(function, dynamic=False, mode="reduce-overhead" if device.type == "cuda" else "default")

    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        # Batches and ground truth come in more sizes than the compiler expects. It reads the limit when it meets a new
        # size, which is inside this call: outside of it the setting stays as it was.
        with torch._dynamo.config.patch(recompile_limit=SHAPES):
            return run(*args, **kwargs)

    return call


@cache
def triton_works() -> bool:
    """Whether Triton is installed, which torch brings for GPUs on Linux, and can build its launcher, which takes a C
    compiler and Python's headers. Small container images lack these."""
    header = Path(sysconfig.get_path("include", "posix_prefix"), "Python.h")
    compiler = os.environ.get("CC") or which("gcc") or which("clang")
    return find_spec("triton") is not None and compiler is not None and header.is_file()
