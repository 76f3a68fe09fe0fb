"""Traces a network, and what resizes its input, into one graph of ONNX operators."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import onnxscript.optimizer
import torch
from onnxscript import ir
from torch import nn

from maskrcnn.config import Config
from maskrcnn.export.network import ExportedNetwork, MaskOutput, example, exported_program, outputs_of
from maskrcnn.export.operators import translations
from maskrcnn.export.resize import Resizing, network_input, onnx_network_input
from maskrcnn.models.mask_rcnn import MaskRCNN
from maskrcnn.predict.exported import INPUTS

OPSET = 18
Translations = Mapping[Callable[..., Any], Callable[..., Any]]


def trace_network(network: MaskRCNN, config: Config, masks: MaskOutput, *, resize: bool) -> torch.onnx.ONNXProgram:
    """The graph of a network on the CPU, in evaluation mode.

    Args:
        resize: whether it takes an image (H, W, 3) uint8 of any size in place of a batch of network inputs.
    """
    names = outputs_of(config, masks)
    exported = ExportedNetwork(network, config, masks)
    program = _trace(exported, *example(config), INPUTS, names, translations())
    if resize:
        _put_before(program.model.graph, _resizing(config))
    everything = 1 << 40  # bytes: weights that the network joins or turns are stored as it uses them
    onnxscript.optimizer.fold_constants(
        program.model, onnx_shape_inference=False, input_size_limit=everything, output_size_limit=everything
    )
    onnxscript.optimizer.remove_unused_nodes(program.model)
    own_biases(program.model.graph)
    return program


def own_biases(graph: ir.Graph) -> None:
    """Gives each convolution a bias of its own. The RPN has one for all levels.

    OpenVINO joins a convolution with its bias and its ReLU only if no other node takes the bias.
    """
    taken: set[str | None] = set()
    for node in graph:
        bias = node.inputs[2] if node.op_type == "Conv" and len(node.inputs) > 2 else None
        if bias is None or bias.const_value is None:
            continue
        if bias.name in taken:
            own = ir.Value(
                name=f"{bias.name}_{node.name}", shape=bias.shape, type=bias.type, const_value=bias.const_value
            )
            graph.register_initializer(own)
            node.replace_input_with(2, own)
        taken.add(bias.name)


def _trace(
    module: nn.Module,
    arguments: tuple[torch.Tensor, ...],
    varying: tuple[dict[int, Any], ...],
    inputs: Sequence[str],
    outputs: Sequence[str],
    translated: Translations,
) -> torch.onnx.ONNXProgram:
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # torch and onnxscript warn of their own code
        program = torch.onnx.export(
            exported_program(module, arguments, varying),
            (),
            input_names=inputs,
            output_names=outputs,
            opset_version=OPSET,
            custom_translation_table=dict(translated),
            optimize=False,
            verbose=False,
        )
    assert program is not None
    return program


def _resizing(config: Config) -> ir.Graph:
    """The graph that makes the inputs of the network from an image."""

    def translated(image: Any, floats: bool) -> Any:
        return onnx_network_input(image, config)

    image, sides = torch.zeros((40, 50, 3), dtype=torch.uint8), dict.fromkeys((0, 1), torch.export.Dim.DYNAMIC)
    program = _trace(Resizing(config), (image,), (sides,), ["image"], INPUTS, {network_input: translated})
    graph: ir.Graph = program.model.graph
    return graph


def _put_before(graph: ir.Graph, first: ir.Graph) -> None:
    """Gives the outputs of `first` to `graph` as its inputs, which have the same order."""
    nodes, inputs, outputs = list(first), list(first.inputs), list(first.outputs)
    constants = list(first.initializers.values())
    first.inputs.clear()
    first.outputs.clear()
    first.initializers.clear()
    first.remove(nodes)
    for value in (*constants, *(output for node in nodes for output in node.outputs)):
        value.name = f"resizing_{value.name}"
    for node in nodes:
        node.name = f"resizing_{node.name}"
    ir.convenience.replace_all_uses_with(list(graph.inputs), outputs)
    graph.inputs[:] = inputs
    for constant in constants:
        graph.register_initializer(constant)
    graph.insert_before(graph[0], nodes)
