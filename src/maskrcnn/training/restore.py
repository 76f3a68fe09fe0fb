"""Checks the stored state of a network and its optimiser, and fills both.

The fused optimisers read and write the memory of their state without a check of its size. So everything that comes from
a file is compared with the network before it is used.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from reprlib import repr as short_repr
from typing import Any

import torch
from torch import Tensor, nn


def checked_tensors(module: nn.Module, stored: Any, what: str) -> dict[str, Tensor]:
    """The stored tensors for `module.load_state_dict`.

    Raises:
        ValueError: their names, shapes or dtypes are not those of the module, or a number is not finite.
    """
    expected, given = module.state_dict(), _by_name(stored, what)
    if given.keys() != expected.keys():
        differing = sorted(map(str, given.keys() ^ expected.keys()))
        raise ValueError(f"{what}: {len(differing)} tensors are missing or unexpected, first: {differing[0]}")
    for name, value in given.items():
        _require_like(value, expected[name], f"{what} {name}")
    return dict(given)


def checked_scaler(expected: Mapping[str, Any], stored: Any) -> dict[str, Any]:
    """The stored state of a gradient scaler.

    Raises:
        ValueError: it has other settings, or a number that cannot be.
    """
    given = _by_name(stored, "scaler")
    wrong = given.keys() != expected.keys() or any(
        type(given[name]) is not type(value) or not 0 <= given[name] < math.inf for name, value in expected.items()
    )
    if wrong:
        raise ValueError(f"scaler: expected numbers like {short_repr(dict(expected))}, found {short_repr(given)}")
    return dict(given)


def checked_count(value: Any, what: str) -> int:
    """A count of updates; raises ValueError if it is none."""
    if type(value) is not int or value < 0:
        raise ValueError(f"{what}: expected a count, found {short_repr(value)}")
    return value


def restored_state(optimiser: torch.optim.Optimizer, stored: Any, *, begun: bool) -> dict[str, Any]:
    """The stored state for `optimiser.load_state_dict`, with copies of its tensors in the layout of the parameters.

    Args:
        begun: whether the optimiser has made a step, after which every parameter has a state.

    Raises:
        ValueError: it is not a state of this optimiser.
    """
    built = optimiser.state_dict()
    given = _by_name(stored, "optimiser")
    if given.keys() != built.keys() or _settings(given["param_groups"]) != _settings(built["param_groups"]):
        raise ValueError("its optimiser has other groups of parameters or other settings")
    expected = _expected(optimiser) if begun else {}
    states = _by_name(given["state"], "optimiser state")
    if states.keys() != expected.keys():
        raise ValueError(f"expected the optimiser state of {len(expected)} parameters, found {len(states)} others")
    return built | {"state": {number: _restored(like, number, states[number]) for number, like in expected.items()}}


def matching_state(optimiser: torch.optim.Optimizer, stored: Any, *, begun: bool) -> dict[str, Any]:
    """The part of the stored state that fits an optimiser with other groups or settings, by the names of parameters.

    A parameter without a state of its own begins with zeros. If the optimiser is of another kind, all do.

    Raises:
        ValueError: it is no state of an optimiser, or the tensor of a parameter has another shape.
    """
    built, given = optimiser.state_dict(), _by_name(stored, "optimiser")
    found = {
        name: given["state"][number]
        for group in given["param_groups"]
        for name, number in zip(group["param_names"], group["params"], strict=True)
        if number in given["state"]
    }
    numbers = {
        number: name
        for group in built["param_groups"]
        for name, number in zip(group["param_names"], group["params"], strict=True)
    }
    expected = _expected(optimiser)
    same_kind = {number for number, like in expected.items() if found.get(numbers[number], {}).keys() == like.keys()}
    if not begun or not same_kind:
        return built
    state = {
        number: _restored(like, number, found[numbers[number]])
        if number in same_kind
        else {key: torch.zeros_like(value) for key, value in like.items()}
        for number, like in expected.items()
    }
    return built | {"state": state}


def _expected(optimiser: torch.optim.Optimizer) -> dict[int, dict[str, Tensor]]:
    """Tensors like those in the state of each parameter after a step."""
    parameters = enumerate(parameter.detach() for group in optimiser.param_groups for parameter in group["params"])
    if isinstance(optimiser, torch.optim.AdamW):
        return {number: {"step": torch.zeros(()), "exp_avg": like, "exp_avg_sq": like} for number, like in parameters}
    return {number: {"momentum_buffer": like} for number, like in parameters if optimiser.defaults["momentum"]}


def _restored(expected: Mapping[str, Tensor], number: int, stored: Any) -> dict[str, Tensor]:
    """Copies of the tensors in the state of one parameter: the file in which they lie will be replaced."""
    given = _by_name(stored, f"optimiser state {number}")
    if given.keys() != expected.keys():
        raise ValueError(f"optimiser state {number}: expected {list(expected)}, found {short_repr(list(given))}")
    for name, value in given.items():
        _require_like(value, expected[name], f"optimiser state {number}.{name}")
        if name in ("step", "exp_avg_sq") and value.lt(0).any():
            raise ValueError(f"optimiser state {number}.{name}: found a negative number")
    return {name: torch.empty_like(like).copy_(given[name]) for name, like in expected.items()}


def _by_name(value: Any, what: str) -> Mapping[Any, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{what}: expected entries by name, found {type(value).__name__}")
    return value


def _require_like(value: Any, expected: Tensor | None, what: str) -> None:
    """Raises ValueError unless the value is a tensor of finite numbers with the expected shape and dtype."""
    if not isinstance(value, Tensor):
        raise ValueError(f"{what}: expected a tensor, found {type(value).__name__}")
    if expected is not None and (value.shape != expected.shape or value.dtype != expected.dtype):
        found, wanted = (f"{tuple(tensor.shape)} {tensor.dtype}" for tensor in (value, expected))
        raise ValueError(f"{what}: expected {wanted}, found {found}")
    if not value.isfinite().all():
        raise ValueError(f"{what}: expected finite numbers")


def _settings(groups: Any) -> str:
    """The groups of an optimiser as text. Their learning rate is left out: every step sets it."""
    return json.dumps([{name: value for name, value in group.items() if name != "lr"} for group in groups])
