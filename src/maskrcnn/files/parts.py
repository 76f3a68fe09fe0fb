"""Finds the weights in the content of a checkpoint: they may lie in nested dictionaries, beside other weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from reprlib import repr as short_repr  # a key may be long
from typing import Any

import numpy as np
from torch import Tensor

from maskrcnn.errors import WeightsError
from maskrcnn.files.pickle_modules import Module

# The keys under which training files keep the weights. The first one that holds tensors is read.
# model: Detectron2, maskrcnn-benchmark, DETR; state_dict: MMDetection, Lightning; blobs: Detectron; model_state:
# PySlowFast; network: ours.
WEIGHTS_KEYS = ("model", "state_dict", "model_state_dict", "model_state", "blobs", "network", "net", "weights", "ema")
MAX_LEVELS = 4  # dictionaries around the weights


@dataclass(frozen=True)
class FoundWeights:
    """The weights in a file.

    Attributes:
        weights: tensors by name, with plain values among them.
        beside: all other entries of the dictionaries around the weights.
        others: the names of entries with other weights, unless one was asked for.
        network: the network that holds the weights, if it was pickled whole.
        is_part: whether the entry that was asked for was found.
    """

    weights: Mapping[str, Any]
    beside: dict[Any, Any]
    others: tuple[str, ...]
    network: Module | None
    is_part: bool


def find_weights(path: Path, content: Mapping[Any, Any] | Module, part: str | None) -> FoundWeights:
    """The weights in the content of a file.

    Args:
        part: the name of the entry to take if there is one with weights.

    Raises:
        WeightsError: there are no weights, or several without a usual name, or their names are not texts.
    """
    beside: dict[Any, Any] = {}
    others: list[str] = []
    is_part = False
    for _ in range(MAX_LEVELS):
        if isinstance(content, Module):
            break
        parts = [key for key, value in content.items() if isinstance(key, str) and _names_layers(value)]
        key = part if part in parts and not is_part else _usual_key(path, content, parts)
        if key is None:
            break
        is_part = is_part or key == part
        others += [name for name in parts if name != key]
        beside |= {name: value for name, value in content.items() if name != key}
        content = content[key]
    network = content if isinstance(content, Module) else None
    weights = content.state_dict() if isinstance(content, Module) else content
    _check_names(path, weights, beside)
    return FoundWeights(weights, beside, () if is_part else tuple(others), network, is_part)


def choose_one(parts: Sequence[str]) -> str:
    """How to choose one of several parts, for messages."""
    return f"to choose one: --part {parts[0]}, or part={parts[0]!r} in Python"


def is_tensor(value: Any) -> bool:
    return isinstance(value, Tensor | np.ndarray)


def _usual_key(path: Path, content: Mapping[Any, Any], parts: list[str]) -> Any:
    """The key of the weights. None if they lie in the dictionary itself, or there are none."""
    usual = [key for key in WEIGHTS_KEYS if _holds_tensors(content.get(key))]
    if usual:
        return usual[0]
    if any(is_tensor(value) for value in content.values()):
        return None
    held = [key for key, value in content.items() if _holds_tensors(value)]
    if len(held) == 1:
        return held[0]
    if len(parts) > 1:
        found = ", ".join(map(short_repr, parts[:10]))
        raise WeightsError(f"{path}: expected the weights of one network, found those of {found}; {choose_one(parts)}")
    return parts[0] if parts else None


def _check_names(path: Path, weights: Mapping[Any, Any], beside: Mapping[Any, Any]) -> None:
    names = [name for name, value in weights.items() if is_tensor(value)]
    optimisers = [str(name) for name, value in [*beside.items(), *weights.items()] if _is_optimiser(value)]
    if "param_groups" in weights or (optimisers and not any("." in str(name) for name in names)):
        where = f" under {short_repr(optimisers[0])}" if optimisers else ""
        raise WeightsError(
            f"{path}: expected the weights of a network, found only the state of an optimiser{where}; give the file of "
            "the network, which the training saved beside it"
        )
    if not names:
        held = ", ".join(f"{short_repr(key)}: {type(value).__name__}" for key, value in list(weights.items())[:6])
        raise WeightsError(
            f"{path}: expected a dictionary of tensors by name, or one under {', '.join(WEIGHTS_KEYS[:5])}, "
            f"found {{{held or 'nothing'}}}; save model.state_dict()"
        )
    for name in names:
        if not isinstance(name, str):
            raise WeightsError(f"{path}: expected a dictionary of tensors by name, found the name {short_repr(name)}")


def _is_optimiser(value: Any) -> bool:
    """Whether a value is the state of an optimiser, or a list of them."""
    first = value[0] if isinstance(value, list) and value else value
    return isinstance(first, dict) and "param_groups" in first


def _holds_tensors(value: Any, depth: int = 2) -> bool:
    """Whether a value is a network, or a dictionary that holds tensors, directly or under one of `WEIGHTS_KEYS`."""
    if not isinstance(value, dict):
        return isinstance(value, Module)
    inner = depth > 0 and any(_holds_tensors(value.get(key), depth - 1) for key in WEIGHTS_KEYS)
    return inner or any(is_tensor(item) for item in value.values()) or _names_layers(value)


def _names_layers(value: Any, depth: int = 2) -> bool:
    """Whether a value is a network, or a dictionary with tensors of layers, such as `conv1.weight`, or holds one."""
    if not isinstance(value, dict):
        return isinstance(value, Module)
    named = {name: item for name, item in value.items() if isinstance(name, str)}
    if any("." in name and is_tensor(item) for name, item in named.items()):
        return True
    return depth > 0 and any(_names_layers(item, depth - 1) for item in named.values())
