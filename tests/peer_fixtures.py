"""Real checkpoints of other frameworks with their own outputs: `shared/fixtures`, as FORMAT.md there describes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from maskrcnn.config import Config
from maskrcnn.data.loading.loader import Batch, collate
from maskrcnn.data.loading.sample import Sample
from maskrcnn.files.images import read_image
from maskrcnn.models.build import build_model
from maskrcnn.models.losses import mean_losses
from maskrcnn.models.mask_rcnn import MaskRCNN
from maskrcnn.models.rpn import Proposals
from maskrcnn.ops.polygons import polygons_to_rle
from maskrcnn.ops.rle import rle_to_crop
from maskrcnn.predict import preprocess
from maskrcnn.weights.frameworks.importer import Imported


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


def training_batch(fixture: PeerFixture, config: Config, numbers: Sequence[int]) -> Batch:
    """The images `numbers` as the peer trained on them: resized as in prediction, not flipped."""
    return collate([_sample(fixture, config, number) for number in numbers], config.image)


def _sample(fixture: PeerFixture, config: Config, number: int) -> Sample:
    arrays, image = fixture.expected, fixture.image(number)
    batch = preprocess([image], config)
    (frame,), (height, width) = batch.frames, batch.sizes_hw[0].tolist()
    scale = frame.scale_xy
    keypoints = arrays.get(f"gt{number}_keypoints")
    if keypoints is not None:
        keypoints = (keypoints * [*scale, 1] * (keypoints[..., 2:] > 0)).astype(np.float32)
    objects = fixture.truth[number]["polygons"]
    drawn = [polygons_to_rle([np.reshape(part, (-1, 2)) for part in parts], frame.original_hw) for parts in objects]
    return Sample(
        image=batch.pixels[0, :, :height, :width],
        boxes=(arrays[f"gt{number}_boxes"] * np.tile(scale, 2)).astype(np.float32),
        labels=arrays[f"gt{number}_classes"].astype(np.int64),
        crowd=np.zeros(len(objects), dtype=bool),
        crops=[rle_to_crop(counts, frame.original_hw) for counts in drawn],
        frame=frame,
        image_id=number,
        keypoints=keypoints,
    )


def losses_on(network: MaskRCNN, batch: Batch, proposals: Sequence[np.ndarray]) -> dict[str, torch.Tensor]:
    """The losses with the peer's own proposals, one (N, 4) array an image: a box that rounding lets through or not
    would change them by more than what is compared."""
    features = network.features(batch.images)
    output = network.rpn(features, batch.images.pixels.shape[-2:])
    boxes = torch.from_numpy(np.stack(proposals))
    given = Proposals(boxes, torch.ones(boxes.shape[:2], dtype=torch.bool))
    losses = network.rpn.losses(output, batch.targets, batch.images.sizes_hw)
    return mean_losses(losses | network.roi_heads.losses(features, given, batch.targets, batch.images.sizes_hw))
