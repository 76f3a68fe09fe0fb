"""The translations to ONNX, run operator by operator in ONNX Runtime, beside the operators of torch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from onnxscript import ir
from onnxscript.tensor import Tensor as OnnxTensor
from torch.nn.functional import group_norm

from coco_runs import joined, runs_of
from maskrcnn.export.dense import onnx_dense_masks
from maskrcnn.export.keypoints import onnx_decode_keypoints
from maskrcnn.export.operators import onnx_group_norm, onnx_nms, onnx_roi_align
from maskrcnn.export.runs import onnx_mask_runs
from maskrcnn.export.trace import own_biases
from maskrcnn.ops.keypoints import decode_keypoints
from maskrcnn.ops.nms import nms
from maskrcnn.ops.paste import paste_to_runs
from maskrcnn.ops.roi_align import roi_align
from maskrcnn.structures.masks import RLE


def onnx(value: Any) -> OnnxTensor:
    return OnnxTensor(np.asarray(value))


def random_boxes(rng: np.random.Generator, shape: tuple[int, ...], side: float) -> np.ndarray:
    low = rng.uniform(-0.1 * side, side, (*shape, 2))
    return np.concatenate([low, low + rng.uniform(0, side / 2, (*shape, 2))], axis=-1).astype(np.float32)


@pytest.mark.parametrize("classes", [None, 3])
def test_suppression_within_lists_and_classes(classes: int | None) -> None:
    rng = np.random.default_rng(1)
    boxes, valid = random_boxes(rng, (3, 40), 60), rng.random((3, 40)) < 0.8
    valid[2] = False  # a list without boxes
    labels = None if classes is None else rng.integers(0, classes, (3, 40))
    expected = nms(*map(torch.from_numpy, (boxes, valid)), 0.4, None if labels is None else torch.from_numpy(labels))
    found = onnx_nms(onnx(boxes), onnx(valid), 0.4, None if labels is None else onnx(labels)).value
    np.testing.assert_array_equal(found, expected.numpy())
    assert 0 < expected.sum() < valid.sum()


@pytest.mark.parametrize(("aligned", "ratio"), [(True, 2), (False, 2), (True, 0)])
@pytest.mark.parametrize("count", [9, 0])
def test_rois_of_all_levels_keep_their_order(aligned: bool, ratio: int, count: int) -> None:
    rng = np.random.default_rng(2)
    features = [rng.standard_normal((2, 3, 64 // s, 64 // s)).astype(np.float32) for s in (4, 8, 16)]
    boxes, image = random_boxes(rng, (count,), 64), rng.integers(0, 2, count)
    level = np.resize([2, 0, 0, 2], count)  # level 1 has none
    expected = roi_align(
        [torch.from_numpy(feature) for feature in features],
        *map(torch.from_numpy, (boxes, image, level)),
        strides=(4, 8, 16),
        output_size=5,
        sampling_ratio=ratio,
        aligned=aligned,
    )
    arrays = [onnx(feature) for feature in features], onnx(boxes), onnx(image), onnx(level)
    found = onnx_roi_align(*arrays, [4.0, 8.0, 16.0], 5, ratio, aligned).value
    assert found.shape == (count, 3, 5, 5)
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-5)


@pytest.mark.parametrize("rois", [3, 0])
def test_group_norm_of_any_number_of_rois(rois: int) -> None:
    rng = np.random.default_rng(5)
    x, weight, bias = (rng.standard_normal(shape).astype(np.float32) for shape in ((rois, 8, 3, 5), 8, 8))
    expected = group_norm(torch.from_numpy(x), 4, torch.from_numpy(weight), torch.from_numpy(bias), 1e-3)
    found = onnx_group_norm(onnx(x), 4, onnx(weight), onnx(bias), 1e-3).value
    assert found.shape == x.shape
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-5)


def masks_of_two_images() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Probabilities, boxes of which two have no area, which slots are filled, and the sizes of the images."""
    rng = np.random.default_rng(3)
    smooth = rng.random((2, 6, 5, 5)).repeat(3, 2).repeat(3, 3)[..., :14, :14].astype(np.float32)
    boxes = random_boxes(rng, (2, 6), 60)
    boxes[0, 1] = boxes[1, 2] = 0
    valid = np.array([[True, True, True, False, True, True], [True, False, True, True, True, False]])
    return smooth, boxes, valid, np.array([[80, 70], [50, 100]])


@pytest.mark.slow
@pytest.mark.parametrize("rule", ["pixel_centres", "expanded_box"])
def test_runs_are_those_of_numpy(rule: Any) -> None:
    smooth, boxes, valid, sizes = masks_of_two_images()
    found = onnx_mask_runs(onnx(smooth), onnx(boxes), onnx(valid), onnx(sizes), 0.5, rule == "expanded_box").value
    for image, (height, width) in enumerate(sizes.tolist()):
        strings = paste_to_runs(smooth[image], boxes[image], (height, width), 0.5, rule)
        for slot in range(6):
            own = found[(found[:, 0] == image) & (found[:, 1] == slot), 2:]
            assert joined(own) == (runs_of(strings[slot]) if valid[image, slot] else []), (image, slot)
    assert len(found) > 40
    assert (np.diff(found[:, 0] * 6 + found[:, 1]) >= 0).all()


@pytest.mark.parametrize("rule", ["pixel_centres", "expanded_box"])
def test_dense_masks_are_those_of_numpy(rule: Any) -> None:
    smooth, boxes, valid, sizes = masks_of_two_images()
    found = onnx_dense_masks(onnx(smooth), onnx(boxes), onnx(valid), onnx(sizes), 0.5, rule == "expanded_box").value
    expected = np.zeros((valid.sum(), 80, 100), np.uint8)
    strings = [paste_to_runs(smooth[i], boxes[i], (h, w), 0.5, rule) for i, (h, w) in enumerate(sizes.tolist())]
    for mask, (image, slot) in zip(expected, np.argwhere(valid), strict=True):
        height, width = sizes[image]
        mask[:height, :width] = RLE((height, width), strings[image][slot]).dense()
    np.testing.assert_array_equal(found, expected)
    assert found.sum() > 100


def test_no_detection_has_no_masks() -> None:
    nothing = np.zeros((1, 3, 4, 4), np.float32), np.zeros((1, 3, 4), np.float32), np.zeros((1, 3), bool)
    assert onnx_mask_runs(*map(onnx, nothing), onnx([[20, 30]]), 0.5, False).value.shape == (0, 4)
    assert onnx_dense_masks(*map(onnx, nothing), onnx([[20, 30]]), 0.5, False).value.shape == (0, 20, 30)


@pytest.mark.parametrize("count", [7, 0])
def test_keypoints_of_boxes_of_all_sizes(count: int) -> None:
    rng = np.random.default_rng(4)
    maps, boxes = rng.standard_normal((count, 3, 20, 20)).astype(np.float32), random_boxes(rng, (count,), 150)
    boxes[:2, 2:] = boxes[:2, :2] + np.array([[0, 0.3], [90, 1]], np.float32)[:count]  # sides below a pixel
    expected = decode_keypoints(torch.from_numpy(maps), torch.from_numpy(boxes))
    found = onnx_decode_keypoints(onnx(maps), onnx(boxes))
    for mine, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(mine.value, other.numpy(), atol=1e-4)


def test_each_convolution_gets_a_bias_of_its_own() -> None:
    sides = [ir.Value(name=name, type=ir.TensorType(ir.DataType.FLOAT)) for name in ("x", "w", "b")]
    sides[2].const_value = ir.tensor(np.float32([1, 2]), name="b")
    nodes = [ir.node("Conv", sides, name=name) for name in ("fine", "coarse")]
    graph = ir.Graph(sides[:2], [node.outputs[0] for node in nodes], nodes=nodes, initializers=[sides[2]])
    own_biases(graph)
    first, second = (node.inputs[2] for node in nodes)
    assert first is sides[2]
    assert second is not None
    assert second.name != "b"
    assert second.name in graph.initializers
    assert second.const_value is not None
    np.testing.assert_array_equal(second.const_value.numpy(), [1, 2])
