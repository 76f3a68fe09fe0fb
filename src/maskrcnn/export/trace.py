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
from maskrcnn.export.network import ExportedNetwork, MaskOutput, outputs_of
from maskrcnn.export.operators import translations
from maskrcnn.export.resize import Resizing, network_input, onnx_network_input
from maskrcnn.models.mask_rcnn import MaskRCNN

OPSET = 18
INPUTS = ("pixels", "sizes_hw", "original_hw", "scale_xy")
Translations = Mapping[Callable[..., Any], Callable[..., Any]]


def trace_network(network: MaskRCNN, config: Config, masks: MaskOutput, *, resize: bool) -> torch.onnx.ONNXProgram:
    """The graph of a network on the CPU, in evaluation mode.

    Args:
        resize: whether it takes an image (H, W, 3) uint8 of any size in place of a batch of network inputs.
    """
    names = outputs_of(config, masks)
    exported = ExportedNetwork(network, config, masks)
    program = _trace(exported, *_example(config), INPUTS, names, translations())
    if resize:
        _put_before(program.model.graph, _resizing(config))
    everything = 1 << 40  # bytes: weights that the network joins or turns are stored as it uses them
    onnxscript.optimizer.fold_constants(
        program.model, onnx_shape_inference=False, input_size_limit=everything, output_size_limit=everything
    )
    onnxscript.optimizer.remove_unused_nodes(program.model)
    return program


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
        traced = torch.export.export(module, arguments, dynamic_shapes=varying, strict=False)
        program = torch.onnx.export(
            traced,
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


def _example(config: Config) -> tuple[tuple[torch.Tensor, ...], tuple[dict[int, Any], ...]]:
    """Arguments of the trace, and which of their sizes vary. Only their shapes matter."""
    images, rows, columns, divisor = 2, 10, 12, config.image.divisor
    height, width = 32 * rows, 32 * columns
    dtype = torch.float32 if config.float_pixels else torch.uint8
    channels = len(config.image.statistics[0])
    sizes, originals = (torch.tensor([[height, width]] * images) for _ in range(2))  # the trace joins equal objects
    batch = torch.export.Dim.DYNAMIC
    # Below 33 pixels a map of stride 32 has one cell, which a trace takes for a constant.
    sides = (divisor * torch.export.Dim(name, min=max(2, 32 // divisor + 1)) for name in ("rows", "columns"))
    pixels = {0: batch} | dict(zip((2, 3), sides, strict=True))
    arguments = (torch.zeros((images, channels, height, width), dtype=dtype), sizes, originals, torch.ones(images, 2))
    return arguments, (pixels, {0: batch}, {0: batch}, {0: batch})
