"""Real checkpoints of other frameworks with their own outputs: `shared/fixtures`, as FORMAT.md there describes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from maskrcnn.models.build import build_model
from maskrcnn.models.mask_rcnn import MaskRCNN
from maskrcnn.structures.image_file import read_image
from maskrcnn.weights.imported import Imported


@dataclass(frozen=True)
class PeerFixture:
    """One folder `<peer>/<variant>`."""

    folder: Path

    @property
    def checkpoint(self) -> Path:
        return next(path for path in sorted(self.folder.iterdir()) if path.suffix in (".pkl", ".pth", ".h5"))

    @cached_property
    def expected(self) -> dict[str, np.ndarray]:
        with np.load(self.folder / "expected.npz") as arrays:
            return dict(arrays)

    @cached_property
    def truth(self) -> Any:
        return json.loads((self.folder / "gt.json").read_text())

    def image(self, number: int) -> np.ndarray:
        return read_image(self.folder / f"input{number}.png")

    def masks(self, number: int) -> np.ndarray:
        """(N, H, W) bool, the pasted masks of the detections in image `number`."""
        height, width = self.expected[f"i{number}_orig_hw"]
        packed = self.expected[f"i{number}_det_masks_packed"]
        return np.unpackbits(packed, axis=1)[:, : height * width].reshape(-1, height, width).astype(bool)


def network_of(imported: Imported) -> MaskRCNN:
    """The network with the imported weights, in evaluation mode."""
    network = build_model(imported.config)
    network.load_state_dict(imported.state)
    return network.eval()


def pairs_of(
    boxes: np.ndarray, labels: np.ndarray, expected_boxes: np.ndarray, expected_labels: np.ndarray
) -> Iterator[tuple[int, int]]:
    """(ours, theirs) by class and nearest box, each of ours once. Not by rank: equal scores may change places."""
    free = np.ones(len(boxes), dtype=bool)
    for theirs, (box, label) in enumerate(zip(expected_boxes, expected_labels, strict=True)):
        distance = np.abs(boxes - box).max(1) + 1e6 * (~free | (labels != label))
        ours = int(distance.argmin())
        free[ours] = False
        yield ours, theirs


def relative_error(found: torch.Tensor, expected: np.ndarray) -> float:
    """The largest difference, as a share of the largest expected value."""
    reference = torch.from_numpy(expected)
    return float((found - reference).abs().max() / reference.abs().max())
