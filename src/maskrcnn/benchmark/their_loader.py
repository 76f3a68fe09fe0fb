"""Training samples from a COCO JSON as torchvision makes them: dense masks, transforms v2.

This follows its detection references (`references/detection`: `coco_utils.py`, and `presets.py` with
`--data-augmentation lsj --backend tv_tensor`), with two differences: the random choices come from a `View`, and hotcoco
decodes run lengths and polygons, which is faster than pycocotools.

Legend: N objects, H and W of the image, S side of the sample.
"""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import hotcoco.mask
import torch
from PIL import Image
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as tf

from maskrcnn.benchmark.view import View


class TheirData:
    """The parsed JSON as pycocotools keeps it: one dictionary per annotation, in lists by image."""

    def __init__(self, path: Path, folder: Path) -> None:
        content = json.loads(path.read_bytes())
        self.folder = folder
        self.images: list[dict[str, Any]] = content["images"]
        self.annotations: dict[Any, list[dict[str, Any]]] = defaultdict(list)
        for annotation in content["annotations"]:
            self.annotations[annotation["image_id"]].append(annotation)

    def read(self, index: int) -> tuple[tv_tensors.Image, dict[str, Tensor]]:
        """Image and target without crowd regions: (N, 4) float32 boxes, (N,) int64 labels, (N, H, W) uint8 masks."""
        entry = self.images[index]
        height, width = entry["height"], entry["width"]
        image = Image.open(self.folder / entry["file_name"]).convert("RGB")
        objects = self.objects(index)
        boxes = torch.tensor([a["bbox"] for a in objects], dtype=torch.float32).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        boxes[:, 0::2].clamp_(min=0, max=width)
        boxes[:, 1::2].clamp_(min=0, max=height)
        labels = torch.tensor([a["category_id"] for a in objects], dtype=torch.int64)
        masks = [torch.from_numpy(hotcoco.mask.decode(rle)) for rle in self.run_lengths(index)]
        stacked = torch.stack(masks) if masks else torch.zeros((0, height, width), dtype=torch.uint8)
        keep = (boxes[:, 3] > boxes[:, 1]) & (boxes[:, 2] > boxes[:, 0])
        return tf.to_image(image), {
            "boxes": tv_tensors.BoundingBoxes(boxes[keep], format="XYXY", canvas_size=(height, width)),
            "labels": labels[keep],
            "masks": tv_tensors.Mask(stacked[keep]),
        }

    def objects(self, index: int) -> list[dict[str, Any]]:
        """The annotations of image number `index`, without crowd regions."""
        return [a for a in self.annotations[self.images[index]["id"]] if not a.get("iscrowd", 0)]

    def run_lengths(self, index: int) -> list[dict[str, Any]]:
        """The masks of `objects`."""
        entry = self.images[index]
        return [_run_lengths(a["segmentation"], entry["height"], entry["width"]) for a in self.objects(index)]

    def sample(self, view: View) -> tuple[Tensor, dict[str, Tensor]]:
        """(3, S, S) float32 image in 0..1 and its target."""
        image, target = self.read(view.index)
        size = (view.side, view.side)
        jitter = v2.ScaleJitter(size, scale_range=(view.factor, view.factor), antialias=True)
        image, target = jitter(image, target)
        image, target = _fixed_size_crop(image, target, view)
        last = v2.Compose(
            [
                v2.RandomHorizontalFlip(float(view.flipped)),
                v2.ToDtype(torch.float, scale=True),
                v2.SanitizeBoundingBoxes(),
                v2.ToPureTensor(),
            ]
        )
        return last(image, target)


def _run_lengths(segmentation: Any, height: int, width: int) -> dict[str, Any]:
    if isinstance(segmentation, list):
        return hotcoco.mask.merge(hotcoco.mask.fr_py_objects(segmentation, height, width))
    if isinstance(segmentation["counts"], list):
        return hotcoco.mask.fr_py_objects(segmentation, height, width)
    return segmentation


def _fixed_size_crop(
    image: tv_tensors.Image, target: dict[str, Tensor], view: View
) -> tuple[tv_tensors.Image, dict[str, Tensor]]:
    """FixedSizeCrop of the references: a window of the image, padded at the right and bottom to S x S."""
    (left, top), (height, width) = view.start_xy, view.out_hw

    def cut(item: Tensor) -> Tensor:
        return tf.pad(tf.crop(item, top, left, height, width), [0, 0, view.side - width, view.side - height])

    return cut(image), {**target, "boxes": cut(target["boxes"]), "masks": cut(target["masks"])}
