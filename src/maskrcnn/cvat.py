"""A model as a function of CVAT's command line, which annotates a task on the machine of the user:

cvat-cli task auto-annotate 7 --function-module maskrcnn.cvat -p model=str:runs/x/model.safetensors

cvat-sdk calls `create` with the parameters of the command line, reads `spec`, and calls `detect` for each image
(https://docs.cvat.ai/docs/api_sdk/sdk/auto-annotation/).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from PIL import Image

from maskrcnn.errors import MissingPackageError
from maskrcnn.ops.outlines import FEW_CORNERS
from maskrcnn.predict import Predictor, load
from maskrcnn.structures.masks import RLE

if TYPE_CHECKING:
    from cvat_sdk.auto_annotation import DetectionFunctionContext, DetectionFunctionSpec
    from cvat_sdk.models import LabeledShapeRequest


def create(model: str, device: str | None = None, threads: int | None = None) -> Function:
    """The function for a model; arguments and errors as in `maskrcnn.load`.

    Raises:
        MissingPackageError: the package cvat-sdk is not installed.
    """
    try:
        import cvat_sdk.auto_annotation  # noqa: F401
    except ModuleNotFoundError as error:
        raise MissingPackageError(f"maskrcnn.cvat needs {error.name}: pip install 'maskrcnn[cvat]'") from None
    return Function(load(model, device, threads=threads))


@dataclass(frozen=True)
class Function:
    """A detection function of cvat-sdk: masks, or the boxes of a model without masks."""

    model: Predictor

    @cached_property
    def spec(self) -> DetectionFunctionSpec:
        """The labels, which CVAT matches by name with those of the task."""
        from cvat_sdk.auto_annotation import DetectionFunctionSpec, label_spec

        kind = "rectangle" if self.model.config.model.mask_head is None else "mask"
        return DetectionFunctionSpec(labels=[label_spec(name, i, type=kind) for i, name in enumerate(self.model.names)])

    def detect(self, context: DetectionFunctionContext, image: Image.Image) -> list[LabeledShapeRequest]:
        """The objects of an image from the threshold of the command line on, or else from the model's own thresholds.

        Masks become one polygon for each part if the command line asks for polygons. Empty masks are left out.
        """
        from cvat_sdk.auto_annotation import rectangle, shape

        least = self.model.thresholds if context.conf_threshold is None else context.conf_threshold
        found = self.model.predict(image)[0].with_score(least)
        objects = zip(found.labels.tolist(), found.scores.tolist(), strict=True)
        if found.masks is None:
            boxes = found.boxes.tolist()
            return [rectangle(label, box, score=score) for (label, score), box in zip(objects, boxes, strict=True)]
        kind, points = ("polygon", polygons_of) if context.conv_mask_to_poly else ("mask", mask_points)
        return [
            shape(label, type=kind, points=part, score=score)
            for (label, score), mask in zip(objects, found.masks, strict=True)
            if mask.area
            for part in points(mask)
        ]


def mask_points(mask: RLE) -> list[list[float]]:
    """CVAT's form of a mask: run lengths row by row in the tight box, background first, and the box's first and last
    pixel x1, y1, x2, y2."""
    from cvat_sdk.masks import encode_mask

    bitmap, (x, y) = mask.crop()
    *runs, x1, y1, x2, y2 = encode_mask(bitmap != 0)
    return [[*runs, x1 + x, y1 + y, x2 + x, y2 + y]]


def polygons_of(mask: RLE) -> list[list[float]]:
    parts: list[Any] = [part.reshape(-1).tolist() for part in mask.outer_polygons(FEW_CORNERS) if len(part) > 2]
    return parts
