"""Chooses what of a data set is shown, and turns training samples into pictures with objects."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from PIL import Image

from maskrcnn.data.loading.transforms import Sample
from maskrcnn.doctor.diagnosis import Diagnosis
from maskrcnn.doctor.findings import KINDS
from maskrcnn.errors import ConfigError, DataError
from maskrcnn.structures.dataset import Dataset
from maskrcnn.structures.instances import Instances
from maskrcnn.structures.masks import RLE, Masks
from maskrcnn.structures.records import as_numpy

Size = Literal["small", "medium", "large"]
_AREAS: dict[Size, tuple[float, float]] = {"small": (0, 32**2), "medium": (32**2, 96**2), "large": (96**2, np.inf)}


def of_size(dataset: Dataset, size: Size) -> Dataset:
    """The data set with all images, and only the annotations of one of COCO's sizes: an area below 32 x 32 pixels, from
    96 x 96 on, or between. It is the area of the file, or of the box if the file gives none."""
    boxes = as_numpy(dataset.columns["annotated_boxes"])[:, 2:].prod(axis=1)
    areas = as_numpy(dataset.columns["areas"])
    areas = np.where(np.isfinite(areas), areas, boxes)
    least, most = _AREAS[size]
    return dataset.with_annotations((areas >= least) & (areas < most))


def with_fault(diagnosis: Diagnosis, kind: str) -> Dataset:
    """The images with a kind of fault. Of images whose annotations have it, only these are left.

    Raises:
        ConfigError: there is no such kind.
        DataError: no image has it.
    """
    if kind not in KINDS:
        raise ConfigError(f"--fault: expected one of {', '.join(KINDS)}, found {kind}")
    dataset = diagnosis.dataset
    found = [one for one in diagnosis.findings if one.kind == kind and one.image is not None]
    if not found:
        raise DataError(f"{dataset.path}: nothing to draw, no image has the fault {kind}")
    rows = [row for one in found for row in one.rows]
    chosen = list(dict.fromkeys(one.image for one in found if one.image is not None))
    if rows:
        kept = np.zeros(len(dataset.columns["labels"]), dtype=bool)
        kept[rows] = True
        dataset = dataset.with_annotations(kept)
    return dataset.subset(chosen)


def sample_picture(sample: Sample) -> np.ndarray:
    """The network input of a training sample as (h, w, 3) uint8 RGB; the first three of other channels."""
    pixels = sample.image.float().round().clamp(0, 255).byte().numpy().transpose(1, 2, 0)
    three = pixels[..., :3] if pixels.shape[2] >= 3 else np.repeat(pixels[..., :1], 3, axis=2)
    return np.ascontiguousarray(three)


def sample_instances(sample: Sample, names: Sequence[str]) -> Instances:
    """The objects of a training sample in pixels of its network input, without crowd regions.

    Args:
        names: of the classes.
    """
    objects = np.flatnonzero(~sample.crowd)
    labels = sample.labels[objects]
    return Instances(
        image_hw=sample.frame.input_hw,
        boxes=sample.boxes[objects],
        scores=np.ones(len(objects), dtype=np.float32),
        labels=labels,
        masks=Masks([_mapped(sample, i) for i in objects.tolist()], sample.frame.input_hw),
        names=tuple(names[label] for label in labels.tolist()),
    )


def _mapped(sample: Sample, number: int) -> RLE:
    """The mask of an object, as the network input shows it; that of an object without a mask covers its box."""
    height, width = sample.frame.input_hw
    bitmap, (x, y) = sample.crops[number]
    if not bitmap.size:
        mask = np.zeros((height, width), dtype=bool)
        x1, y1, x2, y2 = sample.boxes[number].round().astype(int).tolist()
        mask[y1:y2, x1:x2] = True
        return RLE.from_dense(mask)
    back = sample.frame.inverse[:2].copy()
    back[:, 2] -= (x, y)
    drawn = Image.fromarray(bitmap).transform((width, height), Image.Transform.AFFINE, back.ravel().tolist())
    return RLE.from_dense(np.asarray(drawn))
