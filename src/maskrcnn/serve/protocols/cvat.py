"""The function protocol of CVAT (https://www.cvat.ai): what its nuclio functions are asked and answer."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from functools import partial
from typing import Annotated, Any

import numpy as np
from fastapi import FastAPI, Request
from pydantic import BaseModel, Field, ValidationError

from maskrcnn.ops.outlines import FEW_CORNERS
from maskrcnn.serve.problems import RefusalError, in_words
from maskrcnn.serve.service import Service
from maskrcnn.serve.settings import Labelling
from maskrcnn.structures.instances import Instances
from maskrcnn.structures.masks import RLE


class FunctionRequest(BaseModel):
    image: str  # base64
    threshold: Annotated[float, Field(ge=0, le=1)] | None = None


def add_routes(app: FastAPI, service: Service, labelling: Labelling) -> None:
    name = service.name(None)

    @app.get("/cvat/labels", summary="CVAT: the labels for the spec of a function")
    async def labels() -> list[dict[str, Any]]:
        config = service.engines[name].crew.config
        kind = "mask" if config.model.mask_head is not None else "rectangle"
        return [{"id": i, "name": category.name, "type": kind} for i, category in enumerate(config.categories)]

    @app.post("/cvat", summary="CVAT: the objects of an image", openapi_extra=_BODY)
    async def detect(request: Request) -> list[dict[str, Any]]:
        try:
            asked = FunctionRequest.model_validate_json(await service.intake.read(request))
            image = base64.b64decode(asked.image, validate=True)
        except ValidationError as error:
            raise RefusalError(400, in_words(error.errors())) from None
        except (binascii.Error, ValueError):
            raise RefusalError(400, "image: expected an encoded image in base64") from None
        usual = labelling.least(service.engines[name].crew.thresholds)
        least = usual if asked.threshold is None else asked.threshold
        return await service.ask(request, name, image, partial(shapes, least=least))


_BODY = {
    "requestBody": {"required": True, "content": {"application/json": {"schema": FunctionRequest.model_json_schema()}}}
}


def shapes(image: np.ndarray, found: Instances, least: float | Sequence[float]) -> list[dict[str, Any]]:
    """The objects as CVAT's shapes: masks, or rectangles of a model without masks. Empty masks are left out.

    Args:
        least: objects with a lower score are left out.
    """
    found = found.with_score(least)
    entries = []
    for i, label in enumerate(found.class_names):
        entry = {"confidence": str(float(found.scores[i])), "label": label}
        if found.masks is None:
            entries.append({**entry, "type": "rectangle", "points": found.boxes[i].tolist()})
        elif found.masks[i].area:
            entries.append({**entry, "type": "mask", **_mask(found.masks[i])})
    return entries


def _mask(mask: RLE) -> dict[str, Any]:
    """`mask`: the pixels of the tight box row by row as 0 and 1, then its first and last pixel x1, y1, x2, y2.
    `points`: the largest part as a polygon, for projects that take polygons."""
    bitmap, (x, y) = mask.crop()
    height, width = bitmap.shape
    largest = max(mask.outer_polygons(FEW_CORNERS), key=lambda part: float(np.prod(np.ptp(part, axis=0))))
    return {
        "points": largest.reshape(-1).tolist(),
        "mask": [*bitmap.reshape(-1).tolist(), x, y, x + width - 1, y + height - 1],
    }
