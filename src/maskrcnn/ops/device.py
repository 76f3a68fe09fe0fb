"""Which form of an operation serves a tensor's device: the one place where that is chosen."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec

import torch
from torch import Tensor


def has_kernels(tensor: Tensor) -> bool:
    """Whether the Triton kernels of this folder run where the tensor lies: on CUDA, with Triton installed, as it is
    with torch for Linux."""
    return tensor.is_cuda and _triton()


def fixed_shapes(tensor: Tensor) -> bool:
    """Whether sizes may not follow from values: a device would have to be waited for, a compiler would have to stop.

    Elsewhere looking at values costs nothing, and what is not needed is not computed.
    """
    return tensor.is_cuda or torch.compiler.is_compiling()


@cache
def _triton() -> bool:
    return find_spec("triton") is not None
