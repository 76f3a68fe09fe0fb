"""The objects of one image, and their algebra: select, shift, flip and join.

Legend: N objects, K keypoints.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from maskrcnn.config import Category
from maskrcnn.errors import DataError
from maskrcnn.structures.crops import Crop
from maskrcnn.structures.keypoints import swap_sides
from maskrcnn.structures.masks import Masks


@dataclass(frozen=True)
class Instances:
    """Detected or annotated objects of one image, in pixels of that image.

    Attributes:
        image_hw: height and width of the image.
        boxes: (N, 4) float32, continuous edges x1 y1 x2 y2.
        scores: (N,) float32, descending; 1 for ground truth.
        labels: (N,) int64, 0-based.
        masks: N run-length masks of the whole image, or None for a model without masks.
        names: the class name of each object, or empty.
        keypoints: (N, K, 3) float32 x, y and score, or None. The score of a ground-truth keypoint is its visibility
            0, 1 or 2.
        categories: all categories of the model or data set, for the names and limbs of keypoints; empty if unknown.
    """

    image_hw: tuple[int, int]
    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    masks: Masks | None
    names: tuple[str, ...] = ()
    keypoints: np.ndarray | None = None
    categories: tuple[Category, ...] = ()

    def __len__(self) -> int:
        return len(self.boxes)

    @property
    def class_names(self) -> tuple[str, ...]:
        """The class name of each object, or its number from 1 where the names are unknown."""
        return self.names or tuple(str(label + 1) for label in self.labels.tolist())

    def select(self, index: np.ndarray | list[int] | slice) -> Instances:
        """The objects at `index`: a slice, positions, or an (N,) bool array."""
        chosen = np.arange(len(self))[index]
        return replace(
            self,
            boxes=self.boxes[chosen],
            scores=self.scores[chosen],
            labels=self.labels[chosen],
            masks=None if self.masks is None else self.masks[chosen],
            names=tuple(self.names[i] for i in chosen) if self.names else (),
            keypoints=None if self.keypoints is None else self.keypoints[chosen],
        )

    def crops(self) -> list[Crop]:
        """`crop` of each object, which is faster than one by one."""
        return [self.crop(i) for i in range(len(self))] if self.masks is None else self.masks.crops()

    def areas(self) -> np.ndarray:
        """(N,) int64, pixels of each mask; all pixels that a box touches where there are no masks."""
        if self.masks is not None:
            return self.masks.areas()
        return np.array([bitmap.size for bitmap, _ in self.crops()], dtype=np.int64)

    def crop(self, number: int) -> Crop:
        """The mask of an object, cropped to its tight box; all pixels that its box touches where there are no masks."""
        if self.masks is not None:
            return self.masks[number].crop()
        (x1, y1), (x2, y2) = np.floor(self.boxes[number, :2]).astype(int), np.ceil(self.boxes[number, 2:]).astype(int)
        return np.ones((y2 - y1, x2 - x1), dtype=np.uint8), (int(x1), int(y1))

    def with_score(self, least: float | Sequence[float]) -> Instances:
        """The objects whose score is at least `least`: one number for all classes, or one for each."""
        of_classes = np.asarray(least, dtype=np.float32)
        return self.select(self.scores >= (of_classes[self.labels] if of_classes.ndim else of_classes))

    def without_overlaps(self) -> Instances:
        """The objects without the pixels of better ones, each with the tight box of what is left of it. Objects that
        are covered entirely are left out. Objects without masks stay as they are."""
        if self.masks is None:
            return self
        masks = self.masks.without_overlaps()
        return replace(self, masks=masks, boxes=masks.boxes()).select(masks.areas() > 0)

    def shifted(self, offset_xy: tuple[int, int], image_hw: tuple[int, int]) -> Instances:
        """The same objects in another image, for example in the image from which this tile was cut.

        Boxes and masks are clipped to the other image. Objects outside it are kept, with zero area.

        Args:
            offset_xy: the pixel of the other image at the top left corner of this one; may be negative.
            image_hw: height and width of the other image.
        """
        height, width = image_hw
        boxes = np.clip(self.boxes + np.tile(offset_xy, 2), 0, [width, height, width, height])
        return replace(
            self,
            image_hw=image_hw,
            boxes=boxes.astype(np.float32),
            masks=None if self.masks is None else self.masks.shifted(offset_xy, image_hw),
            keypoints=None if self.keypoints is None else self.keypoints + np.array([*offset_xy, 0], np.float32),
        )

    def flipped_horizontally(self) -> Instances:
        """The objects after a left-right flip of the image. Keypoints of the left and right sides of a body are
        swapped, because a mirrored left hand looks like a right hand."""
        return self._flipped(0, None if self.masks is None else self.masks.flipped_horizontally())

    def flipped_vertically(self) -> Instances:
        """The objects after a top-bottom flip of the image. This mirrors them too, so left and right keypoints are
        swapped."""
        return self._flipped(1, None if self.masks is None else self.masks.flipped_vertically())

    def _flipped(self, axis: int, masks: Masks | None) -> Instances:
        """The objects with coordinates mirrored along one axis, 0 for x and 1 for y; `masks` are already flipped."""
        side, boxes, keypoints = self.image_hw[1 - axis], self.boxes.copy(), self.keypoints
        boxes[:, [axis, axis + 2]] = side - self.boxes[:, [axis + 2, axis]]
        if keypoints is not None:
            names = [self.categories[label].keypoints if self.categories else () for label in self.labels]
            keypoints = swap_sides(keypoints, names)
            keypoints[..., axis] = side - keypoints[..., axis]
        return replace(self, boxes=boxes, masks=masks, keypoints=keypoints)


def join_instances(parts: Sequence[Instances]) -> Instances:
    """Joins several `Instances` of one image, by descending score; equal scores keep their order.

    Raises:
        DataError: there are no parts, or they differ in image size, categories, masks or number of keypoints.
    """
    if not parts:
        raise DataError("join: expected one or more parts, found none")
    first = parts[0]
    for number, part in enumerate(parts):
        if _kind(part) != _kind(first):
            raise DataError(f"join: expected every part to have {_kind(first)}; found part {number} with {_kind(part)}")
    joined = replace(
        first,
        boxes=np.concatenate([part.boxes for part in parts]),
        scores=np.concatenate([part.scores for part in parts]),
        labels=np.concatenate([part.labels for part in parts]),
        masks=None if first.masks is None else Masks([m for part in parts for m in part.masks or ()], first.image_hw),
        names=tuple(name for part in parts for name in part.names),
        keypoints=None
        if first.keypoints is None
        else np.concatenate([part.keypoints for part in parts if part.keypoints is not None]),
    )
    return joined.select(np.argsort(-joined.scores, kind="stable"))


def _kind(instances: Instances) -> str:
    """The properties that all parts of a join must share, in words."""
    categories = [category.name for category in instances.categories]
    masks = "no masks" if instances.masks is None else "masks"
    points = "no keypoints" if instances.keypoints is None else f"{instances.keypoints.shape[1]} keypoints"
    return f"an image of height, width {instances.image_hw}, categories {categories}, {masks} and {points}"
