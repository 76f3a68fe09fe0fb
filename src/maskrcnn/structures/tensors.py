"""Moving and pinning all tensors of a dataclass."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, is_dataclass
from typing import TypeVar

from torch import Tensor

T = TypeVar("T")


def map_tensors(value: T, change: Callable[[Tensor], Tensor]) -> T:
    """A copy of a dataclass with `change` applied to every tensor in it and in its nested dataclasses."""
    if isinstance(value, Tensor):
        return change(value)  # type: ignore[return-value]
    if is_dataclass(value) and not isinstance(value, type):
        return type(value)(**{f.name: map_tensors(getattr(value, f.name), change) for f in fields(value)})
    return value


def to_device(value: T, device: object) -> T:
    """A copy of a dataclass with its tensors on a device. Copies from pinned memory are asynchronous."""
    return map_tensors(value, lambda tensor: tensor.to(device, non_blocking=True))  # type: ignore[call-overload]
