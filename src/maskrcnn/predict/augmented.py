"""Test-time augmentation: several views of an image, whose boxes are merged and whose masks are averaged.

The method is that of Detectron2's `modeling/test_time_augmentation.py` (`GeneralizedRCNNWithTTA`). The boxes of all
views pass through non-maximum suppression together. The mask branch then runs on the remaining boxes in each view, and
the probabilities are averaged. Detectron2 computes the features of each view twice; here they are kept.

Legend: B images, V views, D detections of one view, N merged detections, K keypoints, M side of a mask.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
import torch
from torch import Tensor

from maskrcnn.config import Config
from maskrcnn.errors import ConfigError
from maskrcnn.ops import boxes as box_ops
from maskrcnn.ops.nms import nms
from maskrcnn.predict.backend import TorchBackend
from maskrcnn.predict.images import collate_prepared
from maskrcnn.predict.pipeline import ImageLike, predict_images
from maskrcnn.predict.predictor import Detected, Predictor
from maskrcnn.structures.detections import Detections
from maskrcnn.structures.frame import Frame, letterboxed, network_frame, pad_size, resized_frame
from maskrcnn.structures.images import resize_to_network, stretched
from maskrcnn.structures.instances import Instances
from maskrcnn.structures.keypoints import flip_pairs

SCALES = (0.8, 1.0, 1.25)


@dataclass(frozen=True)
class ImageView:
    """How the network sees an image: larger or smaller than usual by a factor, and mirrored or not."""

    scale: float = 1.0
    flip_horizontal: bool = False
    flip_vertical: bool = False

    @property
    def mirrored(self) -> bool:
        """Whether the left side of an object looks like its right side."""
        return self.flip_horizontal != self.flip_vertical

    def config(self, config: Config) -> Config:
        """The config with other sizes of the network input."""
        image, factor = config.image, self.scale
        fixed = image.fixed_size
        if fixed is not None:
            fixed = pad_size(round(fixed[0] * factor), round(fixed[1] * factor), image.divisor)
        scale = None if image.scale is None else image.scale * factor
        sides = {side: max(1, round(getattr(image, side) * factor)) for side in ("short_side", "long_side")}
        if config.conventions.pixels.letterbox == "square":  # the long side is that of the network input
            sides["long_side"] = pad_size(1, sides["long_side"], image.divisor)[1]
        return replace(config, image=replace(image, **sides, scale=scale, fixed_size=fixed))

    def frame(self, original_hw: tuple[int, int], config: Config) -> Frame:
        """The frame of an image in this view; `config` is that of the view."""
        frame = resized_frame(original_hw, config)
        if self.flip_horizontal:
            frame = frame.flipped_horizontally()
        if self.flip_vertical:
            frame = frame.flipped_vertically()
        return letterboxed(frame, config)


def usual_views(config: Config) -> tuple[ImageView, ...]:
    """Views at `SCALES`, as they are and with the flips that the model has met in training."""
    horizontal = (False, True) if config.augment.flip_horizontal else (False,)
    vertical = (False, True) if config.augment.flip_vertical else (False,)
    return tuple(ImageView(*values) for values in product(SCALES, horizontal, vertical))


@dataclass(frozen=True)
class PreparedViews:
    """The network inputs of one image with their frames, one of each view, and the frame without augmentation."""

    views: tuple[tuple[Tensor, Frame], ...]
    usual: Frame


@dataclass(frozen=True)
class Augmented:
    """A `Detector` that shows each image to a model in several views.

    Attributes:
        model: its limits and thresholds hold for each view and for the result.
        views: default: `usual_views` of the model.

    Raises:
        ConfigError: the model is an exported or a compiled network, or there is no view.
    """

    model: Predictor
    views: tuple[ImageView, ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.model.backend, TorchBackend) or self.model.backend.compile:
            raise ConfigError(
                "test-time augmentation runs the mask head on boxes that several views share: expected a network in "
                "PyTorch that is not compiled, found an exported or a compiled one"
            )
        if not self.views:
            object.__setattr__(self, "views", usual_views(self.model.config))

    @property
    def config(self) -> Config:
        return self.model.config

    @property
    def device(self) -> torch.device:
        return self.model.device

    def with_detections(self, most: int) -> Augmented:
        """The same detector with another limit of detections an image."""
        return replace(self, model=self.model.with_detections(most))

    def predict(self, images: ImageLike | Iterable[ImageLike], batch_size: int = 1) -> list[Instances]:
        """As `Predictor.predict`."""
        return predict_images(self, images, batch_size, self.config.image.channel_names)

    def prepare(self, image: np.ndarray) -> PreparedViews:
        """The network inputs of an image, (H, W, 3) uint8 RGB or (H, W, C) of a model of channels."""
        values = stretched(image, self.config.image.channels)
        size, rules = (image.shape[0], image.shape[1]), self.config.conventions.pixels
        frames = [view.frame(size, view.config(self.config)) for view in self.views]
        inputs = tuple((resize_to_network(values, frame, rules), frame) for frame in frames)
        return PreparedViews(inputs, network_frame(size, self.config))

    def detect(self, prepared: Sequence[PreparedViews]) -> Detected:
        """The merged detections of a batch, in pixels of the network input without augmentation."""
        usual = tuple(image.usual for image in prepared)
        batches = [
            collate_prepared([image.views[number] for image in prepared], view.config(self.config))
            for number, view in enumerate(self.views)
        ]
        back = [_matrices([(f, u) for f, u in zip(batch.frames, usual, strict=True)]) for batch in batches]
        merged: list[Detections] = []

        def agree(found: Sequence[Detections]) -> list[Detections]:
            merged.append(self._merged(found, back, usual))
            trim = self.config.conventions.boxes.trim
            return [replace(merged[0], boxes=_move(merged[0].boxes, torch.linalg.inv(m), trim)) for m in back]

        backend = self.model.backend
        assert isinstance(backend, TorchBackend)  # see __post_init__
        found = backend.detect_views(batches, self.config.model.detect, agree)
        masks = [part.mask_probs for part in found if part.mask_probs is not None]
        points = [part.keypoints for part in found if part.keypoints is not None]
        averaged = replace(
            merged[0],
            mask_probs=self._mean_masks(masks) if masks else None,
            keypoints=self._best_keypoints(points, merged[0].labels, back) if points else None,
        )
        return Detected(averaged, usual)

    def finish(self, found: Detected) -> list[Instances]:
        """The objects of each image of a batch, in pixels of the original image."""
        return self.model.finish(found)

    def _merged(self, found: Sequence[Detections], back: Sequence[Tensor], usual: Sequence[Frame]) -> Detections:
        """The boxes of all views after non-maximum suppression, (B, N, 4) in the network input without augmentation."""
        settings, trim = self.config.model.detect, self.config.conventions.boxes.trim
        boxes = torch.cat([_move(part.boxes, m, trim) for part, m in zip(found, back, strict=True)], dim=1)
        scores, order = torch.cat([part.scores for part in found], dim=1).sort(dim=1, descending=True, stable=True)
        windows = torch.tensor([frame.window for frame in usual], dtype=torch.float32, device=boxes.device)
        boxes = box_ops.clip(boxes, box_ops.trim(windows, trim))
        boxes = boxes.gather(1, order[..., None].expand(-1, -1, 4))
        labels = torch.cat([part.labels for part in found], dim=1).gather(1, order)
        keep = nms(boxes, scores > 0, settings.nms_iou, labels)
        # Sorted and not `topk`, which leaves the order of equal scores open.
        scores, best = scores.where(keep, 0.0).sort(dim=1, descending=True, stable=True)
        scores, best = scores[:, : settings.max_detections], best[:, : settings.max_detections]
        boxes = boxes.gather(1, best[..., None].expand(-1, -1, 4))
        return Detections(boxes, scores, labels.gather(1, best), scores > 0)

    def _mean_masks(self, masks: Sequence[Tensor]) -> Tensor:
        """The mean of the masks (B, N, M, M) of all views, after their flips are undone."""
        total = torch.zeros_like(masks[0])
        for mask, view in zip(masks, self.views, strict=True):
            flipped = [axis for axis, flip in ((-1, view.flip_horizontal), (-2, view.flip_vertical)) if flip]
            total += mask.flip(flipped)
        return total / len(self.views)

    def _best_keypoints(self, points: Sequence[Tensor], labels: Tensor, back: Sequence[Tensor]) -> Tensor:
        """Each keypoint from the view in which its score is highest, (B, N, K, 3).

        Detectron2 has no such rule. A mean of positions would lie between two places if the views disagree.
        """
        swapped = self._swaps(points[0].shape[2], labels)
        moved = []
        for found, view, matrix in zip(points, self.views, back, strict=True):
            scale, shift = _scale_and_shift(matrix, found)
            place = (found[..., :2] * scale[:, None, None] + shift[:, None, None]).to(found.dtype)
            moved.append(torch.cat([place, found[..., 2:]], dim=-1))
            if view.mirrored:
                moved[-1] = moved[-1].gather(2, swapped[..., None].expand(-1, -1, -1, 3))
        views = torch.stack(moved)  # (V, B, N, K, 3)
        best = views[..., 2:].argmax(0, keepdim=True)
        return views.gather(0, best.expand(-1, -1, -1, -1, 3))[0]

    def _swaps(self, count: int, labels: Tensor) -> Tensor:
        """For each keypoint of the detections the one on the other side of the body, (B, N, K) int64."""
        partners = torch.arange(count).repeat(max(1, len(self.config.categories)), 1)
        for row, category in zip(partners, self.config.categories, strict=False):
            for left, right in flip_pairs(category.keypoints):
                row[left], row[right] = right, left
        return partners.to(labels.device)[labels.clamp(max=len(partners) - 1)]


def _matrices(pairs: Sequence[tuple[Frame, Frame]]) -> Tensor:
    """(B, 3, 3) float64, maps pixels of the first network input to pixels of the second one."""
    return torch.from_numpy(np.stack([end.matrix @ start.inverse for start, end in pairs]))


def _scale_and_shift(matrices: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
    """The factors and the shifts of x and y in (B, 3, 3) matrices without quarter turns, (B, 2) float64 each."""
    scale = matrices[:, :2, :2].diagonal(dim1=1, dim2=2)
    return scale.to(like.device), matrices[:, :2, 2].to(like.device)


def _move(boxes: Tensor, matrices: Tensor, trim: float) -> Tensor:
    """Maps (B, D, 4) float32 boxes by (B, 3, 3) matrices. `trim` is that of `BoxRules`."""
    scale, shift = _scale_and_shift(matrices, boxes)
    corners = box_ops.trim(boxes.double(), -trim).unflatten(-1, (2, 2)) * scale[:, None, None] + shift[:, None, None]
    edges = torch.cat([corners.amin(-2), corners.amax(-2)], dim=-1)
    return box_ops.trim(edges, trim).to(boxes.dtype)
