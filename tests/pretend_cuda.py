"""A network and a batch on a CUDA device that is not there: shapes and devices are followed, nothing is computed.

What would wait for the device is an error there (`nonzero`, `.item()`) or is noted (copies between devices).
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import maskrcnn
from maskrcnn.structures.tensors import map_tensors

PACKAGE = Path(maskrcnn.__file__).parent
T = TypeVar("T")


class Copies(TorchDispatchMode):
    """Notes every operation whose tensors lie on more than one device, and where in our code it is."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        tensors = [leaf for leaf in tree_leaves((args, kwargs, result)) if isinstance(leaf, Tensor)]
        if len({tensor.device.type for tensor in tensors}) > 1:
            frames = [f for f in traceback.extract_stack() if Path(f.filename).is_relative_to(PACKAGE)]
            self.found.append(f"{func} at {frames[-1].filename}:{frames[-1].lineno}")
        return result


@contextmanager
def pretend_cuda(network: nn.Module, *batches: T) -> Iterator[tuple[T, ...]]:
    """`network` moved there for good, and dataclasses of tensors there."""
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    places = [(d, name) for m in network.modules() for d in (m._parameters, m._buffers) for name in d]
    real = [None if d[name] is None else d[name].data for d, name in places]
    with mode:

        def there(tensor: Tensor) -> Tensor:
            return mode.from_tensor(tensor).to("cuda")

        for (d, name), values in zip(places, real, strict=True):
            if values is not None:
                needs = d[name].requires_grad
                moved = there(values)
                d[name] = nn.Parameter(moved, requires_grad=needs) if isinstance(d[name], nn.Parameter) else moved
        yield tuple(map_tensors(batch, there) for batch in batches)
