"""What torch's compiler makes of a network for a GPU that is not there: kernels, the bytes they move, their layouts.

Graphs are traced on the CPU in the form that a GPU is given, moved to a pretended `cuda:0` and lowered by Inductor for
an H200; nothing runs. Inductor and Triton ask for the properties of the device, and stand-ins answer. What they ask for
is torch's own business, so this knows one version of it: 2.15.

    python tests/lowered.py            # R50-FPN, two images of 1024x1024, training and prediction, bf16
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
from functorch.compile import make_boxed_func, min_cut_rematerialization_partition
from torch import Tensor
from torch._dynamo.backends.common import aot_autograd
from torch._guards import TracingContext, detect_fake_mode, tracing
from torch._inductor import config as inductor_config
from torch._inductor import scheduler
from torch._inductor.compile_fx import compile_fx_inner
from torch._inductor.decomposition import select_decomp_table
from torch._inductor.exc import InductorError
from torch._inductor.fx_passes.joint_graph import joint_graph_passes
from torch._inductor.graph import GraphLowering
from torch._inductor.virtualized import V
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx import GraphModule
from torch.fx.node import map_aggregate
from torch.fx.passes.fake_tensor_prop import FakeTensorProp

from maskrcnn.ops import nms, roi_align

CUDA = torch.device("cuda:0")
H200 = SimpleNamespace(
    name="NVIDIA H200",
    major=9,
    minor=0,
    multi_processor_count=132,
    total_memory=141 * 10**9,
    regs_per_multiprocessor=65536,
    max_threads_per_multi_processor=2048,
    max_threads_per_block=1024,
    warp_size=32,
    shared_memory_per_block=49152,
    shared_memory_per_block_optin=232448,
    shared_memory_per_multiprocessor=233472,
    L2_cache_size=62914560,
    gcnArchName="",
)


@dataclass(frozen=True)
class Kernel:
    """
    Attributes:
        operator: what is called, or "generated" for code of Inductor's own.
        moved: bytes read and written.
        written: shape and strides of each tensor that it makes.
    """

    operator: str
    moved: int
    written: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]


@dataclass(frozen=True)
class Lowered:
    """
    Attributes:
        traced: the operators of the graph before Inductor, with the shape of each result.
        kernels: in the order of their launch.
        replayed: whether it can be replayed as a CUDA graph.
    """

    traced: set[tuple[str, tuple[int, ...]]]
    kernels: list[Kernel]
    replayed: bool

    @property
    def moved(self) -> int:
        """Bytes."""
        return sum(kernel.moved for kernel in self.kernels)


def lower(call: Callable[..., Any], *arguments: Any) -> list[Lowered]:
    """The graphs of `call` under bf16 autocast: of its results, and of the gradients of their sum where there are any.

    Args:
        call: the losses of a network, or its detections; on the CPU, and so are the arguments.
    """
    return [_lowered(*graph) for graph in _traced(call, *arguments)]


def _traced(call: Callable[..., Any], *arguments: Any) -> list[tuple[str, GraphModule, list[Any]]]:
    graphs: list[tuple[str, GraphModule, list[Any]]] = []

    def keep(kind: str, graph: GraphModule, inputs: Sequence[Any]) -> Callable[..., list[Any]]:
        if kind == "inference":
            _simplify(graph, inputs)
        graphs.append((kind, graph, list(inputs)))
        results = next(node for node in graph.graph.nodes if node.op == "output").args[0]
        return make_boxed_func(lambda *values: [_unset(node) for node in results])

    def partition(graph: GraphModule, inputs: Sequence[Any], **settings: Any) -> Any:
        _simplify(graph, inputs)
        return min_cut_rematerialization_partition(graph, inputs, compiler="inductor", **settings)

    backend = aot_autograd(
        fw_compiler=lambda graph, inputs: keep("forward", graph, inputs),
        bw_compiler=lambda graph, inputs: keep("backward", graph, inputs),
        inference_compiler=lambda graph, inputs: keep("inference", graph, inputs),
        decompositions=select_decomp_table,
        partition_fn=partition,
    )
    with ExitStack() as stack:
        for module in (nms, roi_align):  # as on a GPU
            stack.enter_context(patch.object(module, "has_kernels", lambda tensor: True))
        stack.enter_context(torch.autocast("cpu", torch.bfloat16))
        results = torch.compile(call, fullgraph=True, dynamic=False, backend=backend)(*arguments)
        if torch.is_grad_enabled():
            torch.stack(list(results.values())).sum().backward()
    return graphs


def _simplify(graph: GraphModule, inputs: Sequence[Any]) -> None:
    with V.set_fake_mode(detect_fake_mode(inputs)):
        joint_graph_passes(graph)


def _unset(node: Any) -> Any:
    """Memory that nobody touches in place of a result."""
    value = getattr(node, "meta", {}).get("val")
    return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype) if isinstance(value, Tensor) else value


def _lowered(kind: str, graph: GraphModule, inputs: list[Any]) -> Lowered:
    traced = {
        (str(node.target), tuple(node.meta["val"].shape))
        for node in graph.graph.nodes
        if isinstance(node.target, torch._ops.OpOverload) and isinstance(node.meta.get("val"), Tensor)
    }
    mode = FakeTensorMode()
    found: list[GraphLowering] = []

    def stop(lowering: GraphLowering) -> None:
        lowering.codegen()
        found.append(lowering)
        raise StopIteration

    with (
        _pretended_gpu(),
        patch.object(GraphLowering, "compile_to_module", stop),
        inductor_config.patch(fx_graph_cache=False, compile_threads=1),
    ):
        inputs = _moved(graph, inputs, mode)
        with tracing(TracingContext(mode)), V.set_fake_mode(mode):
            try:
                compile_fx_inner(
                    graph, inputs, cudagraphs=True, is_backward=kind == "backward", is_inference=kind == "inference"
                )
            except InductorError:
                if not found:
                    raise
    (lowering,) = found
    with V.set_graph_handler(lowering):
        kernels = [_kernel(node, lowering) for node in lowering.scheduler.nodes]
    replayed = lowering.disable_cudagraphs_reason is None and lowering.device_types == {"cuda"}
    return Lowered(traced, kernels, replayed)


def _moved(graph: GraphModule, inputs: list[Any], mode: FakeTensorMode) -> list[Any]:
    """The inputs on the pretended device; the graph's constants are made there too."""

    def there(value: Any) -> Any:
        return CUDA if isinstance(value, torch.device) else value

    for node in graph.graph.nodes:
        node.args, node.kwargs = map_aggregate(node.args, there), map_aggregate(node.kwargs, there)
    graph.recompile()
    with mode:
        moved = [
            torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device=CUDA)
            if isinstance(value, Tensor)
            else value
            for value in inputs
        ]
    FakeTensorProp(graph, mode=mode).propagate_dont_convert_inputs(*moved)
    return moved


def _kernel(node: Any, lowering: GraphLowering) -> Kernel:
    made = [lowering.try_get_buffer(dependency.name) for dependency in node.read_writes.writes]
    written = tuple(
        (tuple(map(int, buffer.get_size())), tuple(map(int, buffer.get_stride())))
        for buffer in made
        if buffer is not None and buffer.has_tensor_output()
    )
    operator = "generated"
    if isinstance(node, scheduler.ExternKernelSchedulerNode):
        operator = str(node.node.op_overload or node.node.python_kernel_name or type(node.node).__name__)
    return Kernel(operator, node.get_read_write_buffers_sizes(), written)


class _Driver:
    """Triton's, as far as Inductor asks it."""

    def get_current_target(self) -> Any:
        from triton.backends.compiler import GPUTarget

        return GPUTarget("cuda", 90, 32)

    def is_active(self) -> bool:
        return True


@contextmanager
def _pretended_gpu() -> Iterator[None]:
    from triton.runtime import driver

    def layout(x: Tensor, weight: Tensor, backend: object) -> torch.memory_format:
        """As cuDNN chooses: channels-last where either tensor is."""
        last = any(t.is_contiguous(memory_format=torch.channels_last) and not t.is_contiguous() for t in (x, weight))
        return torch.channels_last if last else torch.contiguous_format

    answers = {
        "is_available": lambda: True,
        "is_initialized": lambda: False,
        "device_count": lambda: 1,
        "current_device": lambda: 0,
        "get_device_properties": lambda *device: H200,
        "_get_device_properties": lambda *device: H200,
        "get_device_capability": lambda *device: (9, 0),
        "get_rng_state": lambda *device: torch.zeros(16, dtype=torch.uint8),
        "set_rng_state": lambda *state, **device: None,
        "_lazy_init": lambda: None,
        "synchronize": lambda *device: None,
        "set_device": lambda *device: None,
        "_exchange_device": lambda device: 0,
        "_maybe_exchange_device": lambda device: 0,
    }
    with (
        patch.multiple(torch.cuda, create=True, **answers),
        patch.object(scheduler, "has_triton", lambda *device: True),
        patch.object(torch.utils._triton, "has_triton", lambda *device: True),
        patch.object(torch._C, "_conv_determine_backend_memory_format", layout),
        patch.object(driver, "_active", _Driver()),
    ):
        yield


def main() -> None:
    """Bytes of a training step and of a prediction, as `bench` takes them with --compile."""
    import tempfile
    from pathlib import Path

    from maskrcnn.benchmark.settings import TrainSettings
    from maskrcnn.benchmark.train import generate_batch, train_config
    from maskrcnn.models.build import build_model

    settings = TrainSettings(size=1024, batch_size=2)
    config = train_config(settings, compile=True)
    with tempfile.TemporaryDirectory() as folder:
        batch = generate_batch(Path(folder), settings, config).ours
    network = build_model(config)
    parts = dict(zip(("forward", "backward"), lower(network.train(), batch.images, batch.targets), strict=True))
    with torch.no_grad():
        (parts["prediction"],) = lower(network.eval().detect, batch.images, config.model.detect)
    for name, part in parts.items():
        print(f"{name}: {part.moved / 1e9:.2f} GB, {len(part.kernels)} kernels, CUDA graph: {part.replayed}")
        sums: Counter[str] = Counter()
        for kernel in part.kernels:
            sums[kernel.operator] += kernel.moved
        for operator, moved in sums.most_common():
            print(f"  {moved / 1e6:8.1f} MB  {operator}")


if __name__ == "__main__":
    sys.exit(main())
