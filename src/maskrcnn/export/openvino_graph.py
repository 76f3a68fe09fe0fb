"""An ONNX file as a graph of OpenVINO, with marks on what it computes in fp32 even where layers are in bf16."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from maskrcnn.predict.exported import import_openvino
from maskrcnn.weights.model_file import METADATA_KEY

LAYERS = {"Convolution", "GroupConvolution", "MatMul"}  # of OpenVINO, with constant weights
# RoIAlign takes its boxes in fp32 in any case.
BETWEEN_LAYERS = {"Add", "AvgPool", "FakeQuantize", "Interpolate", "MaxPool", "Relu", "ROIAlign"}
MOVES = {"Concat", "Gather", "GatherND", "Reshape", "ScatterNDUpdate"}  # values, and compute none
MOVES |= {"Slice", "Split", "Squeeze", "Transpose", "Unsqueeze"}
# With constants, behind FakeQuantize or one another: they make floats of its whole numbers.
DEQUANTISE = {"Convert", "Subtract", "Multiply"}
MARK = "precise_0"  # becomes OpenVINO's attribute for an operator that keeps its precision, when the graph is read


def write_graph(onnx_file: Path, header: str, path: Path) -> None:
    """Writes the graph of an ONNX file to `path`, an XML, and its weights beside it.

    Args:
        header: the config and provenance, as `header_of` gives them.

    Raises:
        RuntimeError: OpenVINO cannot write its files.
    """
    openvino = import_openvino("--format openvino")
    model = openvino.Core().read_model(onnx_file)
    model.set_rt_info(header, [METADATA_KEY])
    keep_in_fp32(model)
    openvino.save_model(model, path, compress_to_fp16=False)


def keep_in_fp32(model: Any) -> None:
    """Marks what OpenVINO shall compute in fp32 if it computes in bf16: all but layers and what lies between them.

    It would compute the boxes of RoIAlign in bf16, too, whose 8 bits hold no pixel beyond 256, and the statistics of
    group norm: `nuclei` lost 0.013 mask AP by it. The marks must be in the file: OpenVINO 2026.4 ignores those that
    Python sets in a graph that it compiles. What only moves the features of RoIs stays in bf16, because in fp32 it took
    as long as all layers. What makes int8 of the values between two layers has no mark either: with one, the layers
    wait for values in fp32, and a ResNet-50-FPN takes twice as long.
    """
    constant: set[str] = set()
    made: set[str] = set()  # by layers, and by the operators between them
    quantised: set[str] = set()  # those of them that make int8, and floats of it
    for node in model.get_ordered_ops():
        name, kind = node.get_friendly_name(), node.get_type_name()
        taken = [source for source in _sources(node) if source not in constant]
        layer = kind in LAYERS and len(taken) == 1
        passes = kind in BETWEEN_LAYERS | MOVES and not made.isdisjoint(taken)
        dequantises = kind in DEQUANTISE and len(taken) == 1 and taken[0] in quantised
        if kind == "Constant" or (not taken and node.inputs()):
            constant.add(name)
        elif layer or passes or dequantises:
            made.add(name)
            if kind == "FakeQuantize" or dequantises:
                quantised.add(name)
        elif kind not in ("Parameter", "Result"):
            node.get_rt_info()[MARK] = ""


def _sources(node: Any) -> list[str]:
    return [part.get_source_output().get_node().get_friendly_name() for part in node.inputs()]
