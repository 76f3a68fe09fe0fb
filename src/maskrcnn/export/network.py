"""The network as an exported graph computes it: tensors in, tensors out, in pixels of the original image.

Legend: B images, H x W pixels of the padded batch, D detections per image, M side of a mask.
"""

from __future__ import annotations

import copy
import math
import warnings
from typing import Any, Literal

import torch
from torch import Tensor, nn

from maskrcnn.config import Config
from maskrcnn.export.dense import dense_masks
from maskrcnn.export.operators import use_operators
from maskrcnn.export.runs import mask_runs
from maskrcnn.models.mask_rcnn import MaskRCNN
from maskrcnn.ops.boxes import trim, whole_images
from maskrcnn.structures.images import ImageBatch

MaskOutput = Literal["runs", "probs", "dense"]
WHOLE_MASKS = {"runs": mask_runs, "dense": dense_masks}


class ExportedNetwork(nn.Module):
    """A copy of a network with operators that have a translation.

    Args:
        masks: what is computed of whole masks, beside the probabilities in boxes.
    """

    def __init__(self, network: MaskRCNN, config: Config, masks: MaskOutput) -> None:
        super().__init__()
        self.network = copy.deepcopy(network).eval()
        use_operators(self.network)
        self.config = config
        self.masks = masks

    def forward(self, pixels: Tensor, sizes_hw: Tensor, original_hw: Tensor, scale_xy: Tensor) -> tuple[Tensor, ...]:
        """Finds the objects of a batch.

        Args:
            pixels: (B, C, H, W), RGB in 0..255, or channels as `structures.images.stretched`; zero in the padding.
            sizes_hw: (B, 2) int64, sizes of the network inputs.
            original_hw: (B, 2) int64, sizes of the original images.
            scale_xy: (B, 2) float32, original pixels per network-input pixel, x and y.

        Returns:
            What `outputs_of` names. Empty slots are zero.
        """
        rules, settings = self.config.conventions, self.config.model.detect
        found = self.network.detect(ImageBatch(pixels, sizes_hw, whole_images(sizes_hw), ()), settings)
        # The steps of predict.images.boxes_to_original.
        scale = scale_xy[:, None]
        spans = trim(found.boxes, rules.boxes.roi_trim) * torch.cat([scale, scale], dim=-1)
        edges = whole_images(original_hw)[:, None].to(torch.float32)
        boxes = torch.minimum(trim(spans, -rules.boxes.roi_trim).clamp(min=0), edges[..., 2:].repeat(1, 1, 2))
        boxes = boxes * found.valid[..., None]
        outputs = [boxes, found.scores, found.labels * found.valid]
        if found.mask_probs is not None:
            outputs.append(found.mask_probs)
        if found.keypoints is not None:
            xy = found.keypoints[..., :2] * scale_xy[:, None, None]
            outputs.append(torch.cat([xy, found.keypoints[..., 2:]], dim=-1))
        if found.mask_probs is not None and self.masks != "probs":
            spans, expanded = trim(boxes, rules.boxes.roi_trim), rules.masks.paste == "expanded_box"
            threshold, pasted = settings.mask_threshold, WHOLE_MASKS[self.masks]
            outputs.append(pasted(found.mask_probs, spans, found.valid, original_hw, threshold, expanded))
        return tuple(outputs)


def outputs_of(config: Config, masks: MaskOutput) -> list[str]:
    """The names of what an exported network returns, as docs/export.md describes it."""
    model = config.model
    whole = model.mask_head is not None and masks != "probs"
    parts = {"masks": model.mask_head is not None, "keypoints": model.keypoint_head is not None, masks: whole}
    return ["boxes", "scores", "labels", *(name for name, there in parts.items() if there)]


def exported_program(
    module: nn.Module, arguments: tuple[Tensor, ...], varying: tuple[dict[int, Any], ...]
) -> torch.export.ExportedProgram:
    """The trace of a module by torch.export. The arguments of this function are those of `example`."""
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # torch warns of its own code
        return torch.export.export(module, arguments, dynamic_shapes=varying, strict=False)


def example(config: Config) -> tuple[tuple[torch.Tensor, ...], tuple[dict[int, Any], ...]]:
    """Arguments of the trace, and which of their sizes vary. Only their shapes matter."""
    images, rows, columns, divisor = 2, 10, 12, config.image.divisor
    unit = math.lcm(32, divisor)
    height, width = unit * rows, unit * columns
    dtype = torch.float32 if config.float_pixels else torch.uint8
    channels = len(config.image.statistics[0])
    sizes, originals = (torch.tensor([[height, width]] * images) for _ in range(2))  # the trace joins equal objects
    batch = torch.export.Dim.DYNAMIC
    # Below 33 pixels a map of stride 32 has one cell, which a trace takes for a constant.
    sides = (divisor * torch.export.Dim(name, min=max(2, 32 // divisor + 1)) for name in ("rows", "columns"))
    pixels = {0: batch} | dict(zip((2, 3), sides, strict=True))
    arguments = (torch.zeros((images, channels, height, width), dtype=dtype), sizes, originals, torch.ones(images, 2))
    return arguments, (pixels, {0: batch}, {0: batch}, {0: batch})
