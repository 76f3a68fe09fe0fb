"""Networks that were pickled whole, `torch.save(model)`, as plain data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from maskrcnn.files.pickle_calls import Foreign

PARTS = ("_parameters", "_buffers", "_modules")  # the attributes by which torch's own code keeps a module


@dataclass(frozen=True)
class Module:
    """A module of torch in a pickle. Its class was neither looked up nor built.

    Attributes:
        kind: the name of its class.
        tensors: the parameters and the buffers that a `state_dict()` holds, by their names in the module.
        attributes: the other attributes that are plain data. An object in them is the dictionary of its own attributes,
            and a class or function is its name.
        children: the modules in it, by name.
    """

    kind: str
    tensors: dict[str, Any]
    attributes: dict[str, Any]
    children: dict[str, Module]

    def state_dict(self) -> dict[str, Any]:
        """All tensors by name, as the `state_dict()` of the module has them."""
        state = dict(self.tensors)
        for name, child in self.children.items():
            state |= {f"{name}.{inner}": value for inner, value in child.state_dict().items()}
        return state

    def find(self, name: str) -> Module | None:
        """The module with a dotted name such as `rpn.head`, or this one without a name. None if there is none."""
        if not name:
            return self
        first, _, rest = name.partition(".")
        child = self.children.get(first)
        return None if child is None else child.find(rest)


def attributes_of(value: Foreign) -> dict[str, Any]:
    """The attributes of an object by name. They come from its dictionary and its slots."""
    parts = value.state if isinstance(value.state, tuple) else (value.state,)
    return {name: item for part in parts if isinstance(part, dict) for name, item in part.items()}


def is_module(value: Foreign) -> bool:
    """Whether an object has the parts of a module of torch."""
    return isinstance(value.state, dict) and all(isinstance(value.state.get(part), dict) for part in PARTS)
