"""One checkpoint of Detectron2 or MMDetection, whose fixtures have one layout, and what is compared with its outputs.

The numbers are those of the project's promise to owners of an old model.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from maskrcnn.config import Config
from maskrcnn.models.mask_rcnn import MaskRCNN
from maskrcnn.predict import Predictor, TorchBackend, load, preprocess
from maskrcnn.structures.detections import Detections
from maskrcnn.structures.images import ImageBatch
from maskrcnn.structures.instances import Instances
from maskrcnn.weights.frameworks.importer import Imported
from peer_fixtures import PeerFixture, network_of, pairs_of, relative_error

EVERY = 1 << 16  # more samples than there are candidates: nothing is drawn at random


@dataclass
class Case:
    """One checkpoint, imported with its config."""

    peer: PeerFixture
    imported: Imported

    @cached_property
    def network(self) -> MaskRCNN:
        return network_of(self.imported)

    @cached_property
    def images(self) -> list[ImageBatch]:
        return [preprocess([self.peer.image(i)], self.imported.config) for i in (0, 1)]

    @cached_property
    def inputs(self) -> list[Tensor]:
        return [self.network.normalise(images) for images in self.images]

    @cached_property
    @torch.no_grad()
    def stages(self) -> list[list[Tensor]]:
        """[res2, res3, ...] of each image."""
        return [self.network.backbone(pixels) for pixels in self.inputs]

    @cached_property
    @torch.no_grad()
    def features(self) -> list[list[Tensor]]:
        return [self.network.neck(reversed(stages)) for stages in self.stages]

    @cached_property
    @torch.no_grad()
    def detections(self) -> list[Detections]:
        return [self.network.detect(images, self.imported.config.model.detect) for images in self.images]

    @cached_property
    def instances(self) -> list[Instances]:
        predictor = Predictor(TorchBackend(self.network), self.imported.config)
        return [predictor.predict(self.peer.image(i))[0] for i in (0, 1)]

    def pairs(self, number: int) -> list[tuple[int, int]]:
        """Our and their detections of one image, by class and box."""
        arrays, found = self.peer.expected, self.instances[number]
        boxes, classes = arrays[f"i{number}_det_boxes"], arrays[f"i{number}_det_classes"]
        return list(pairs_of(found.boxes, found.labels, boxes, classes))

    def of(self, number: int, name: str) -> np.ndarray:
        return self.peer.expected[f"i{number}_{name}"]


def assert_features(case: Case) -> None:
    """Of the backbone and the pyramid."""
    pyramid = case.imported.config.model.neck == "fpn"
    for i in (0, 1):
        found = dict(zip(("res2", "res3", "res4", "res5"), case.stages[i], strict=False))
        if pyramid:
            found |= {f"p{level}": feature for level, feature in enumerate(case.features[i], start=2)}
        compared = [name for name in found if f"i{i}_feat_{name}" in case.peer.expected]
        assert len(compared) == (9 if pyramid else 1)
        for name in compared:
            step = int(case.of(i, f"featstride_{name}"))
            assert relative_error(found[name][..., ::step, ::step], case.of(i, f"feat_{name}")) < 1e-3


@torch.no_grad()
def assert_proposals(case: Case) -> None:
    """Objectness, offsets and anchors of every cell, in their order of the anchors: size, then ratio."""
    anchors = case.imported.config.model.anchors
    shape = len(anchors.ratios), len(anchors.sizes[0])
    for i in (0, 1):
        output = case.network.rpn(case.features[i], case.images[i].pixels.shape[-2:])
        for level, feature in enumerate(case.features[i]):
            h, w = feature.shape[-2:]
            logits = output.logits[level].view(h, w, *shape).permute(3, 2, 0, 1).reshape(-1, h, w)
            deltas = output.deltas[level].view(h, w, *shape, 4).permute(3, 2, 4, 0, 1).reshape(-1, h, w)
            boxes = output.anchors[level].view(h * w, *shape, 4).transpose(1, 2).reshape(-1, 4)
            step = int(case.of(i, f"rpn_deltas_stride_{level}"))
            assert relative_error(logits, case.of(i, f"rpn_logits_{level}")) < 1e-3
            assert relative_error(deltas[:, ::step, ::step], case.of(i, f"rpn_deltas_{level}")) < 1e-3
            np.testing.assert_allclose(boxes, case.of(i, f"anchors_{level}"), atol=1e-4)


def assert_detections(case: Case) -> None:
    """None missing, none added, in pixels of the original image."""
    for i, found in enumerate(case.instances):
        expected = case.of(i, "det_boxes")
        assert len(found) == len(expected) >= 10
        for ours, theirs in case.pairs(i):
            assert np.abs(found.boxes[ours] - expected[theirs]).max() < 0.02
            assert abs(found.scores[ours] - case.of(i, "det_scores")[theirs]) < 1e-3


def clear_pixels(probs: np.ndarray, boxes: np.ndarray, image_hw: tuple[int, int]) -> np.ndarray:
    """(N, H, W) bool: whether the mask's probability at a pixel's centre is further than 0.01 from a half."""
    height, width = image_hw
    maps, edges = torch.from_numpy(probs), torch.from_numpy(boxes)
    x = (torch.arange(width) + 0.5 - edges[:, :1]) / (edges[:, 2:3] - edges[:, :1]) * 2 - 1
    y = (torch.arange(height) + 0.5 - edges[:, 1:2]) / (edges[:, 3:] - edges[:, 1:2]) * 2 - 1
    grid = torch.stack([x[:, None].expand(-1, height, -1), y[:, :, None].expand(-1, -1, width)], dim=-1)
    there = torch.nn.functional.grid_sample(maps[:, None], grid, align_corners=False)[:, 0]
    return ((there - 0.5).abs() > 0.01).numpy()


def assert_masks(case: Case) -> None:
    """Probabilities on the mask's grid, and the pixels of the original image."""
    if case.imported.config.model.mask_head is None:
        assert all(found.masks is None for found in case.instances)
        return
    for i, found in enumerate(case.instances):
        probs = case.detections[i].mask_probs
        assert probs is not None
        assert found.masks is not None
        dense, expected = found.masks.dense(), case.peer.masks(i)
        clear = clear_pixels(case.of(i, "det_mask_probs"), case.of(i, "det_boxes"), found.image_hw)
        for ours, theirs in case.pairs(i):
            np.testing.assert_allclose(probs[0, ours], case.of(i, "det_mask_probs")[theirs], atol=2e-3)
            differ = dense[ours] ^ expected[theirs]
            assert not (differ & clear[theirs]).any()
            # IoU 0.998; of a small mask two pixels on the threshold
            assert differ.sum() <= max(2, 0.002 * (dense[ours] | expected[theirs]).sum())


def assert_saved_as_our_file_it_finds_the_same_bits(case: Case, tmp_path: Path) -> None:
    Predictor(TorchBackend(case.network), case.imported.config).save(tmp_path / "model.safetensors")
    again = load(tmp_path / "model.safetensors", device="cpu", precision="fp32")
    assert again.config == case.imported.config
    found, first = again.predict(case.peer.image(0))[0], case.instances[0]
    assert np.array_equal(found.boxes, first.boxes)
    assert np.array_equal(found.scores, first.scores)
    if found.masks is not None and first.masks is not None:
        assert list(found.masks) == list(first.masks)


def trained_on_everything(config: Config) -> Config:
    model = config.model
    return replace(
        config,
        model=replace(
            model,
            rpn=replace(model.rpn, samples=EVERY),
            box_head=replace(model.box_head, samples=EVERY),
            mask_head=model.mask_head and replace(model.mask_head, samples=EVERY),
            keypoint_head=model.keypoint_head and replace(model.keypoint_head, samples=EVERY),
        ),
    )
