"""What a configuration would miss, compared with all of its anchors."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from maskrcnn.config.presets import preset
from maskrcnn.doctor.limits import best_anchor_iou, crowds_to_learn, missed_objects
from maskrcnn.doctor.set_faults import Measures
from maskrcnn.models.anchors import Anchors
from maskrcnn.models.build import build_model
from maskrcnn.ops.boxes import pairwise_iou
from planted import objects_of


@pytest.mark.parametrize("name", ["mask_rcnn_tiny", "mask_rcnn_R_50_FPN", "mask_rcnn_R_50_C4"])
def test_the_best_anchor_is_that_of_all_anchors(name: str) -> None:
    config = preset(name)
    rng = np.random.default_rng(0)
    low = rng.uniform(0, 220, (40, 2))
    boxes = np.concatenate([low, low + np.exp(rng.uniform(1, 5.3, (40, 2)))], axis=1).clip(0, (256, 192, 256, 192))
    boxes = boxes[(boxes[:, 2:] > boxes[:, :2]).all(axis=1)]
    with torch.device("meta"):
        strides = build_model(config).rpn.anchors.strides
    anchors = Anchors(config.model.anchors.sizes, config.model.anchors.ratios, strides, config.conventions.anchors)
    grids = [(-(-192 // stride), -(-256 // stride)) for stride in strides]
    every = torch.cat(anchors.levels(grids, (192, 256), torch.device("cpu")))
    expected = pairwise_iou(torch.from_numpy(boxes).float(), every).amax(dim=1)
    found = best_anchor_iou(boxes, np.tile([192, 256], (len(boxes), 1)), config)
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-5)


def test_objects_that_are_too_small_too_long_and_too_many_are_named() -> None:
    config = preset("mask_rcnn_R_50_FPN")  # an image of 800 x 1000 becomes the network input as it is
    boxes = [[100, 100, 60, 50], [300, 300, 3, 9], [20, 500, 900, 12]]
    objects = objects_of(*({"box": box} for box in boxes), size=(800, 1000))
    measures = Measures(objects.images, objects.rows, objects.labels, objects.crowd, objects.pixels, objects.given)
    found = list(missed_objects(objects.dataset, measures, config))
    assert [(one.kind, one.rows) for one in found] == [
        ("tiny-object", (1,)),
        ("unreached-object", (1,)),
        ("unreached-object", (2,)),
    ]
    assert {one.severity for one in found} == {"advice"}
    assert found[0].what == "its shorter side has 3 network pixels"
    assert list(crowds_to_learn(objects.dataset, config)) == []
    many = objects_of(*[{"box": [1, 1, 9, 9]}] * (config.train.max_objects + 1))
    (crowd,) = crowds_to_learn(many.dataset, config)
    assert (crowd.kind, crowd.image) == ("too-many-to-learn", 0)
