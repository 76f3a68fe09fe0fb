"""Chooses the implementation of an operation, the precision and the compilation for a device."""

from __future__ import annotations

import os
import sysconfig
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from shutil import which
from typing import Any, Literal, ParamSpec, TypeVar, get_args

import torch
from torch import Tensor

from maskrcnn.errors import ConfigError

Precision = Literal["auto", "fp32", "bf16", "fp16"]
P = ParamSpec("P")
R = TypeVar("R")
_IMPORTED_BY = os.getpid()
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
SHAPES = 64  # a function runs uncompiled once it has been compiled for this number of shapes


def has_kernels(tensor: Tensor) -> bool:
    """Whether the Triton kernels of this folder can run on the device of the tensor."""
    return tensor.is_cuda and triton_works()


def static_shapes(tensor: Tensor) -> bool:
    """Whether the shapes of results must not depend on values.

    Shapes that depend on values make the host wait for a GPU, and make a compiler break the graph. On a CPU and in the
    graph of an exported network they cost nothing and save the work for empty slots.
    """
    return tensor.is_cuda or (torch.compiler.is_compiling() and not torch.compiler.is_exporting())


def usable_device(device: str | torch.device | None) -> torch.device:
    """The device with this name; by default the first GPU if there is one, else the CPU.

    Raises:
        ConfigError: the machine has no such device.
    """
    name = device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError, TypeError) as error:
        why = str(error).partition("\n")[0]
        raise ConfigError(f"device {name!r}: expected a device of this machine, such as 'cpu' ({why})") from None


def resolve_precision(precision: Precision, device: torch.device) -> torch.dtype:
    """The dtype of the network's arithmetic. `auto` is bfloat16 where the device multiplies it faster than float32.

    Raises:
        ConfigError: there is no such precision.
    """
    if precision not in get_args(Precision):
        raise ConfigError(f"precision: expected one of {', '.join(get_args(Precision))}, found {precision!r}")
    if precision == "auto":
        if device.type == "cuda":
            faster = torch.cuda.is_bf16_supported(including_emulation=False)
        else:
            faster = device.type == "cpu" and _cpu_has_fast_bf16()
        return torch.bfloat16 if faster else torch.float32
    return _DTYPES[precision]


def name_of(dtype: torch.dtype) -> str:
    """The name of a dtype that `resolve_precision` returns."""
    return next(name for name, known in _DTYPES.items() if known == dtype)


def _cpu_has_fast_bf16() -> bool:
    """Whether the CPU multiplies bfloat16 faster than float32: with AMX, or with AVX512-BF16 on AMD's processors.

    Xeons with AMX also have AVX512-BF16, but at half the rate of float32 (measured on one whose hypervisor hides AMX).
    AVX512-FP16 distinguishes them: these Xeons have it, and AMD's processors up to Zen 5 do not. The instruction set
    decides and not a measurement, so that a machine always gives the same results.
    """
    if not hasattr(torch.cpu, "get_capabilities"):  # an older torch, which reports AMX alone
        return torch.cpu._is_amx_tile_supported()
    can = torch.cpu.get_capabilities()
    return bool(can.get("amx_bf16") or (can.get("avx512_bf16") and not can.get("avx512_fp16")))


def in_precision(precision: Precision, device: torch.device) -> AbstractContextManager[Any]:
    """The context in which a network computes in that precision. Boxes and losses stay float32."""
    dtype = resolve_precision(precision, device)
    return torch.autocast(device.type, dtype, enabled=dtype != torch.float32)


@contextmanager
def living_threads() -> Iterator[int]:
    """The context in which torch computes on a CPU with the threads that this process can use. Yields their number.

    The threads of OpenMP do not live on in a forked process, which would wait for them forever. It uses one thread.
    """
    threads = torch.get_num_threads()
    usable = threads if os.getpid() == _IMPORTED_BY else 1
    torch.set_num_threads(usable)
    try:
        yield usable
    finally:
        torch.set_num_threads(threads)


def compiled(function: Callable[P, R], device: torch.device) -> Callable[P, R]:
    """Compiles the function, once for each shape of its tensors. On CUDA it is replayed as one graph."""
    run = torch.compile(function, dynamic=False, mode="reduce-overhead" if device.type == "cuda" else "default")

    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        # Batches and ground truth have more shapes than the compiler's default limit. The compiler reads the limit at a
        # new shape, inside this call, so that the setting need not change outside of it.
        with torch._dynamo.config.patch(recompile_limit=SHAPES):
            return run(*args, **kwargs)

    return call


@cache
def triton_works() -> bool:
    """Whether Triton is installed and can build its launcher.

    torch installs Triton for GPUs on Linux. The launcher needs a C compiler and Python's headers, which small container
    images lack.
    """
    header = Path(sysconfig.get_path("include", "posix_prefix"), "Python.h")
    compiler = os.environ.get("CC") or which("gcc") or which("clang")
    return find_spec("triton") is not None and compiler is not None and header.is_file()
