"""Images into network input, and detections back into the pixels of the original images.

Legend: B images, D detection slots an image, N detections of one image, K keypoints, M side of a mask.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from maskrcnn.config import Config
from maskrcnn.config.conventions import BoxRules
from maskrcnn.ops.paste import paste_to_runs
from maskrcnn.structures.detections import Detections
from maskrcnn.structures.frame import Frame, network_frame
from maskrcnn.structures.images import ImageBatch, batch_size_hw, collate_images, resize_to_network, stretched
from maskrcnn.structures.instances import Instances
from maskrcnn.structures.keypoints import PIXEL_CENTRE
from maskrcnn.structures.masks import RLE, Masks
from maskrcnn.structures.tensors import map_tensors


def preprocess(images: Sequence[np.ndarray], config: Config, *, static_shapes: bool = False) -> ImageBatch:
    """Stretches and resizes (H, W, C) arrays as `config` says and pads them to one batch."""
    return collate_prepared([prepare(image, config) for image in images], config, static_shapes=static_shapes)


def prepare(image: np.ndarray, config: Config) -> tuple[Tensor, Frame]:
    """The network input (C, h, w) of an image, and its frame.

    Args:
        image: (H, W, 3) uint8 RGB or, for a model of channels, (H, W, C) of any dtype.

    Raises:
        ImageError: the image has another shape or dtype.
    """
    frame = network_frame((image.shape[0], image.shape[1]), config)
    return resize_to_network(stretched(image, config.image.channels), frame, config.conventions.pixels), frame


def collate_prepared(
    prepared: Sequence[tuple[Tensor, Frame]], config: Config, *, static_shapes: bool = False
) -> ImageBatch:
    """Pads prepared images to one batch. With `static_shapes`, its size is one of a few."""
    pixels, frames = [image for image, _ in prepared], [frame for _, frame in prepared]
    size = batch_size_hw([frame.input_hw for frame in frames], config.image, static_shapes=static_shapes)
    return collate_images(pixels, frames, size)


def postprocess(detections: Detections, frames: Sequence[Frame], config: Config) -> list[Instances]:
    """Brings detections back to the pixels of the original images; masks become run lengths here.

    Args:
        frames: the frames of the B images.
    """
    detections = map_tensors(detections, Tensor.cpu)
    return [_instances(detections, i, frame, config) for i, frame in enumerate(frames)]


def _instances(detections: Detections, number: int, frame: Frame, config: Config) -> Instances:
    """The objects of image `number` of the batch. All tensors lie on the CPU."""
    boxes = boxes_to_original(detections.boxes[number].numpy(), frame, config.conventions.boxes)
    kept = detections.valid[number].numpy()
    if config.conventions.detections.whole_pixels:
        boxes = np.rint(boxes)
        kept = kept & (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
    boxes, labels = boxes[kept], detections.labels[number].numpy()[kept]
    masks, keypoints = detections.mask_probs, detections.keypoints
    return Instances(
        image_hw=frame.original_hw,
        boxes=boxes,
        scores=detections.scores[number].numpy()[kept],
        labels=labels,
        masks=None if masks is None else paste(masks[number].numpy()[kept], boxes, frame.original_hw, config),
        names=tuple(config.categories[label].name for label in labels) if config.categories else (),
        keypoints=None if keypoints is None else keypoints_to_original(keypoints[number].numpy()[kept], frame),
        categories=config.categories,
    )


def boxes_to_original(boxes: np.ndarray, frame: Frame, rules: BoxRules) -> np.ndarray:
    """Boxes in the original image. `rules.end` decides what is mapped:

    - `edge`: the edges of a box, by the frame.
    - `last_pixel`: the first and the last pixel of a box. The last pixel of the window becomes the last pixel of the
      original image, so the scale is the ratio of the sizes minus one (Matterport, `denorm_boxes`).
    - `roi_last_pixel`: the span from the first to the last pixel, by the frame (maskrcnn-benchmark, `BoxList.resize`).

    Args:
        boxes: (N, 4) float32, pixels of the network input.

    Returns:
        (N, 4) float32, continuous edges in pixels of the original image, clipped to it.
    """
    original_wh = np.array(frame.original_hw[::-1], np.float32)
    points = _trim(boxes, rules.roi_trim).reshape(-1, 2, 2)
    if rules.end == "last_pixel":
        start, stop = np.array(frame.window, np.float32).reshape(2, 2)
        moved = (points - start) * ((original_wh - 1) / (stop - start - 1))
    else:
        moved = frame.points_to_original(points)
    edges = _trim(moved.reshape(-1, 4), -rules.trim - rules.roi_trim)
    return np.clip(edges, 0, np.tile(original_wh, 2))


def _trim(boxes: np.ndarray, pixels: float) -> np.ndarray:
    """Subtracts `pixels` from x2 and y2 of (N, 4) float32 boxes."""
    return boxes - np.array([0, 0, pixels, pixels], np.float32)


def keypoints_to_original(keypoints: np.ndarray, frame: Frame) -> np.ndarray:
    """Maps x and y of (N, K, 3) float32 x, y, score from the network input to the original image."""
    return np.concatenate([frame.points_to_original(keypoints[..., :2]), keypoints[..., 2:]], axis=-1)


def paste(probs: np.ndarray, boxes: np.ndarray, image_hw: tuple[int, int], config: Config) -> Masks:
    """The run-length masks of N detections.

    Args:
        probs: (N, M, M) float32, probabilities inside the boxes.
        boxes: (N, 4) float32, pixels of the original image.
        image_hw: size of the original image.
    """
    rules, threshold = config.conventions, config.model.detect.mask_threshold
    spans = _trim(boxes, rules.boxes.roi_trim)
    strings = paste_to_runs(probs, spans, image_hw, threshold, rules.masks.paste)
    return Masks([RLE(image_hw, counts) for counts in strings], image_hw)


def to_coco_results(instances: Instances, image_id: int | str) -> list[dict[str, Any]]:
    """COCO results of one image: image_id, category_id, bbox (x, y, width, height), score, segmentation (RLE) and, for
    categories with keypoints, a flat list of x, y and score of each keypoint.

    x and y of keypoints are pixel indices, as in COCO. Without `instances.categories`, category ids count from 1 and
    every category has keypoints.
    """
    categories, results = instances.categories, []
    for i, label in enumerate(instances.labels.tolist()):
        x1, y1, x2, y2 = (round(float(edge), 3) for edge in instances.boxes[i])
        entry: dict[str, Any] = {
            "image_id": image_id,
            "category_id": categories[label].id if categories else label + 1,
            "bbox": [x1, y1, round(x2 - x1, 3), round(y2 - y1, 3)],
            "score": float(instances.scores[i]),
        }
        if instances.masks is not None:
            entry["segmentation"] = instances.masks[i].to_coco()
        if instances.keypoints is not None and (not categories or categories[label].keypoints):
            points = instances.keypoints[i].astype(np.float64) - (PIXEL_CENTRE, PIXEL_CENTRE, 0)
            entry["keypoints"] = points.round(4).reshape(-1).tolist()
        results.append(entry)
    return results
