"""The network as an exported graph computes it: tensors in, tensors out, in pixels of the original image.

Legend: B images, H x W pixels of the padded batch, D detections per image, M side of a mask, N keypoints,
K runs.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from maskrcnn.config import Config
from maskrcnn.export.operators import use_operators
from maskrcnn.export.runs import mask_runs
from maskrcnn.models.mask_rcnn import MaskRCNN
from maskrcnn.ops.boxes import trim, whole_images
from maskrcnn.structures.images import ImageBatch


class ExportedNetwork(nn.Module):
    """A copy of a network with operators that have a translation.

    Args:
        runs: whether the runs of the masks are computed too.
    """

    def __init__(self, network: MaskRCNN, config: Config, *, runs: bool) -> None:
        super().__init__()
        self.network = copy.deepcopy(network).eval()
        use_operators(self.network)
        self.config = config
        self.runs = runs

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
        if self.runs:
            spans, expanded = trim(boxes, rules.boxes.roi_trim), rules.masks.paste == "expanded_box"
            threshold = settings.mask_threshold
            outputs.append(mask_runs(found.mask_probs, spans, found.valid, original_hw, threshold, expanded))
        return tuple(outputs)


def outputs_of(config: Config, *, runs: bool) -> list[str]:
    """The names of what an exported network returns.

    `boxes` (B, D, 4) float32 x1 y1 x2 y2 in original pixels, `scores` (B, D) float32, `labels` (B, D) int64, `masks`
    (B, D, M, M) float32 probabilities inside the boxes, `keypoints` (B, D, N, 3) float32 x, y in original pixels and
    score, and `runs` (K, 4) int64: image, detection, first and stop pixel of a run, counted down the columns of the
    original image.
    """
    model = config.model
    parts = {"masks": model.mask_head is not None, "keypoints": model.keypoint_head is not None, "runs": runs}
    return ["boxes", "scores", "labels", *(name for name, there in parts.items() if there)]
