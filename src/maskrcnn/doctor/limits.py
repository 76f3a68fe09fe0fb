"""What a configuration would miss: objects that its network sees too small, that no anchor reaches, or too many."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from maskrcnn.config import Config
from maskrcnn.doctor.findings import Finding
from maskrcnn.doctor.set_faults import Measures
from maskrcnn.models.anchors import cell_anchors
from maskrcnn.models.build import build_model
from maskrcnn.structures.dataset import Dataset
from maskrcnn.structures.frame import network_frame, pad_size, transform_boxes

TINY = 4.0  # network pixels: the stride of the finest level


def network_boxes(dataset: Dataset, measures: Measures, config: Config) -> tuple[np.ndarray, np.ndarray]:
    """The boxes of all annotations in network-input pixels, (T, 4) float64 x1 y1 x2 y2, and the heights and widths of
    their padded network inputs, (T, 2) int64."""
    boxes, inputs = measures.boxes.copy(), np.zeros((len(measures.boxes), 2), dtype=np.int64)
    sizes, kind = np.unique(dataset.records.sizes_hw, axis=0, return_inverse=True)
    for number, (height, width) in enumerate(sizes.tolist()):
        frame = network_frame((height, width), config)
        own = kind.ravel()[measures.images] == number
        boxes[own] = transform_boxes(boxes[own], frame.matrix)
        inputs[own] = pad_size(*frame.input_hw, config.image.divisor)
    return boxes, inputs


def best_anchor_iou(boxes: np.ndarray, inputs_hw: np.ndarray, config: Config) -> np.ndarray:
    """(T,) float64: the highest IoU of each box with an anchor of its image.

    Among anchors of one shape, the one with the nearest centre has the highest IoU. So one anchor of each shape is
    compared.

    Args:
        boxes: (T, 4) float64 x1 y1 x2 y2, network-input pixels.
        inputs_hw: (T, 2) int64, padded size of the network input.
    """
    with torch.device("meta"):
        strides = build_model(config).rpn.anchors.strides
    rules, anchors = config.conventions.anchors, config.model.anchors
    best = np.zeros(len(boxes))
    centres, sides = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
    for sizes, stride in zip(anchors.sizes, strides, strict=True):
        last = -(-inputs_hw[:, ::-1] // stride) - 1
        for shape in cell_anchors(sizes, anchors.ratios, stride, rules.rounding).numpy().astype(np.float64):
            middle = (shape[:2] + shape[2:]) / 2
            cell = np.clip(np.rint((centres - middle) / stride - rules.offset), 0, last)
            shift = (cell + rules.offset) * stride
            low, high = np.maximum(boxes[:, :2], shift + shape[:2]), np.minimum(boxes[:, 2:], shift + shape[2:])
            shared = (high - low).clip(0).prod(axis=1)
            union = sides.prod(axis=1) + (shape[2:] - shape[:2]).prod() - shared
            best = np.maximum(best, shared / union)
    return best


def missed_objects(dataset: Dataset, measures: Measures, config: Config) -> Iterator[Finding]:
    """Objects whose shorter side is below `TINY` network pixels, and objects whose best anchor overlaps them so little
    that it is a negative (Ren et al. 2015, section 3.1.2)."""
    boxes, inputs = network_boxes(dataset, measures, config)
    shorter = (boxes[:, 2:] - boxes[:, :2]).min(axis=1)
    seen = ~measures.crowd & (shorter > 0)
    for i in np.flatnonzero(seen & (shorter < TINY)).tolist():
        place = int(measures.images[i]), (int(measures.rows[i]),)
        yield Finding("tiny-object", f"its shorter side has {shorter[i]:.2g} network pixels", "advice", *place)
    best = best_anchor_iou(boxes, inputs, config)
    least = max(config.model.rpn.negative_iou, config.conventions.matching.rpn_low_quality_iou or 0.0)
    for i in np.flatnonzero(seen & (best < least)).tolist():
        place = int(measures.images[i]), (int(measures.rows[i]),)
        width, height = (boxes[i, 2:] - boxes[i, :2]).tolist()
        what = f"{width:.0f} x {height:.0f} network pixels, and its best anchor has an IoU of {best[i]:.2f}"
        yield Finding("unreached-object", what, "advice", *place)


def crowds_to_learn(dataset: Dataset, config: Config) -> Iterator[Finding]:
    """Images with more annotations than a training step keeps."""
    counts, most = dataset.records.counts, config.train.max_objects
    for number in np.flatnonzero(counts > most).tolist():
        what = f"{counts[number]} annotations; a step learns at most {most} of an image, chosen at random"
        yield Finding("too-many-to-learn", what, "advice", number)
