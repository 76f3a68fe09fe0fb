"""What OpenVINO keeps in fp32 when it computes in bf16."""

from __future__ import annotations

import numpy as np
import pytest

from maskrcnn.predict.exported import IN_FP32, keep_in_fp32


def test_boxes_stay_in_fp32_and_layers_do_not() -> None:
    openvino = pytest.importorskip("openvino")
    from openvino import opset13 as op

    weight = op.constant(np.ones((4, 4, 1, 1), np.float32))
    pixels = op.parameter([-1, 4, 8, 8], np.float32, name="pixels")
    boxes = op.parameter([-1, 4], np.float32, name="boxes")

    def layer(value: object) -> object:
        flat = ([1, 1], [0, 0], [0, 0], [1, 1])
        bias = op.reshape(op.constant(np.ones(4, np.float32)), np.array([1, 4, 1, 1]), False)
        return op.add(op.convolution(value, weight, *flat), bias)

    normal = op.subtract(pixels, op.constant(np.float32(3)))
    first = op.relu(layer(normal))
    shortcut = op.add(first, layer(first))
    pooled = op.roi_align(shortcut, boxes, op.constant(np.zeros(1, np.int64)), 2, 2, 2, 1.0, "avg")
    deltas = op.reshape(layer(pooled), np.array([-1, 4]), False)
    moved = op.add(op.multiply(deltas, op.constant(np.float32(0.1))), boxes)
    model = openvino.Model([moved], [pixels, boxes])
    keep_in_fp32(model)
    kinds: dict[bool, list[str]] = {True: [], False: []}
    for node in model.get_ordered_ops():
        marked = IN_FP32 in node.get_rt_info()
        kinds[marked].append(node.get_type_name())
    assert sorted(kinds[True]) == ["Add", "Multiply", "Reshape", "Subtract"]  # the last sum, and the first step
    assert {"Convolution", "ROIAlign", "Relu"} <= set(kinds[False])
