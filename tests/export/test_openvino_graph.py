"""What OpenVINO keeps in fp32 when it computes in bf16."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from maskrcnn.export.openvino_graph import MARK, keep_in_fp32


@pytest.fixture
def model() -> Any:
    """A network with layers, RoIAlign in regions of twice the size of boxes, and boxes that its result moves."""
    openvino = pytest.importorskip("openvino")
    from openvino import opset13 as op

    weight = op.constant(np.full((4, 4, 1, 1), 0.25, np.float32))
    pixels = op.parameter([-1, 4, 8, 512], np.float32, name="pixels")
    boxes = op.parameter([-1, 4], np.float32, name="boxes")
    regions = op.multiply(boxes, op.constant(np.float32(2)))

    def layer(value: object) -> object:
        flat = ([1, 1], [0, 0], [0, 0], [1, 1])
        bias = op.reshape(op.constant(np.zeros(4, np.float32)), np.array([1, 4, 1, 1]), False)
        return op.add(op.convolution(value, weight, *flat), bias)

    normal = op.subtract(pixels, op.constant(np.float32(3)))
    first = op.relu(layer(normal))
    shortcut = op.add(first, layer(first))
    pooled = op.roi_align(shortcut, regions, op.constant(np.zeros(1, np.int64)), 1, 1, 2, 1.0, "avg")
    deltas = op.reshape(layer(pooled), np.array([-1, 4]), False)
    moved = op.add(op.multiply(deltas, op.constant(np.float32(0.1))), boxes)
    return openvino.Model([moved], [pixels, boxes])


def test_boxes_stay_in_fp32_and_layers_do_not(model: Any) -> None:
    keep_in_fp32(model)
    kinds: dict[bool, list[str]] = {True: [], False: []}
    for node in model.get_ordered_ops():
        kinds[MARK in node.get_rt_info()].append(node.get_type_name())
    # The first step, the regions, and the last sum.
    assert sorted(kinds[True]) == ["Add", "Multiply", "Multiply", "Subtract"]
    assert {"Convolution", "ROIAlign", "Relu", "Reshape"} <= set(kinds[False])


def test_what_makes_int8_between_two_layers_has_no_mark() -> None:
    """With one, each layer would wait for values in fp32, and the whole network took twice as long."""
    openvino = pytest.importorskip("openvino")
    from openvino import opset13 as op

    def number(value: float) -> object:
        return op.constant(np.float32(value))

    def in_int8(value: object) -> object:
        whole = op.fake_quantize(value, number(0), number(1), number(-128), number(127), 256)
        again = op.convert(op.convert(whole, np.int8), np.float32)
        return op.multiply(op.subtract(again, number(-128)), number(1 / 255))

    weight = op.constant(np.full((4, 4, 1, 1), 0.25, np.float32))
    value = op.parameter([-1, 4, 8, 8], np.float32)
    flat = ([1, 1], [0, 0], [0, 0], [1, 1])
    first = op.convolution(value, weight, *flat)
    second = op.convolution(in_int8(first), weight, *flat)
    model = openvino.Model([op.multiply(second, number(2)), in_int8(value)], [value])
    keep_in_fp32(model)
    marked = [node.get_type_name() for node in model.get_ordered_ops() if MARK in node.get_rt_info()]
    # Those of the pixels, which no layer has made, and the arithmetic behind the last layer.
    assert sorted(marked) == ["Convert", "Convert", "FakeQuantize", "Multiply", "Multiply", "Subtract"]


def test_the_marks_hold_once_they_are_in_the_file(model: Any, tmp_path: Path) -> None:
    """In bf16, columns from 256 on are even. RoIAlign would take its features from a place one pixel away."""
    import openvino

    keep_in_fp32(model)
    openvino.save_model(model, tmp_path / "model.xml", compress_to_fp16=False)
    pixels = np.full((1, 4, 8, 512), 3, np.float32)
    pixels[..., 301:] = 11  # the difference is a number that bf16 holds
    given = {"pixels": pixels, "boxes": np.array([[299.1, 1, 301.1, 5]], np.float32) / 2}
    found = []
    for precision in ("f32", "bf16"):
        core = openvino.Core()
        network = core.compile_model(
            core.read_model(tmp_path / "model.xml"), "CPU", {"INFERENCE_PRECISION_HINT": precision}
        )
        found.append(next(iter(network(given).values())))
    np.testing.assert_allclose(found[1], found[0], atol=0.01)
