"""Keypoint R-CNN against torchvision's, with the same weights on real images of people: detections and losses."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from maskrcnn.config import Config
from maskrcnn.data.formats import read_dataset
from maskrcnn.data.loading.loader import collate
from maskrcnn.data.loading.transforms import training_sample
from maskrcnn.models.build import build_model
from maskrcnn.models.mask_rcnn import MaskRCNN
from maskrcnn.predict import Predictor, TorchBackend
from maskrcnn.weights.frameworks.torchvision.layout import our_state
from torchvision_copy import in_one_batch, torchvision_keypoint_model, torchvisions_keypoint_rules

LOSSES = {
    "loss_objectness": "loss_rpn_class",
    "loss_rpn_box_reg": "loss_rpn_box",
    "loss_classifier": "loss_class",
    "loss_box_reg": "loss_box",
    "loss_keypoint": "loss_keypoint",
}


def as_float(image: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(image).permute(2, 0, 1).float() / 255


@pytest.fixture(scope="module")
def pair(shared: Path) -> tuple[nn.Module, MaskRCNN, Config, list[np.ndarray]]:
    dataset = read_dataset(shared / "data" / "person" / "val.json")
    shapes = [record.width > record.height for record in dataset.records]
    images = [dataset.read(shapes.index(landscape)) for landscape in (True, False)]
    config = torchvisions_keypoint_rules(160, 267, 60, 12)
    theirs = torchvision_keypoint_model(config, [as_float(images[0])])
    ours = build_model(config)
    ours.load_state_dict(our_state(theirs.state_dict(), config))
    return theirs, ours.eval(), config, images


@pytest.mark.slow
def test_detections(pair: tuple[nn.Module, MaskRCNN, Config, list[np.ndarray]]) -> None:
    theirs, ours, config, images = pair
    with torch.no_grad():
        expected = theirs([as_float(image) for image in images])
    found = in_one_batch(Predictor(TorchBackend(ours), config), images)
    for their, our in zip(expected, found, strict=True):
        assert len(our) == len(their["boxes"]) >= 8
        assert our.keypoints is not None
        for box, score, points, point_scores in zip(
            their["boxes"].numpy(),
            their["scores"].numpy(),
            their["keypoints"].numpy(),
            their["keypoints_scores"].numpy(),
            strict=True,
        ):
            match = int(np.abs(our.boxes - box).max(1).argmin())
            assert np.abs(our.boxes[match] - box).max() < 0.01
            assert abs(our.scores[match] - score) < 1e-4
            near = np.abs(our.keypoints[match, :, :2] - points[:, :2]).max(-1) < 0.05
            assert near.sum() >= 16  # of 17: two peaks of random maps may be equal to rounding
            np.testing.assert_allclose(our.keypoints[match, :, 2], point_scores, rtol=1e-3, atol=1e-3)


@pytest.mark.slow
def test_losses(pair: tuple[nn.Module, MaskRCNN, Config, list[np.ndarray]], shared: Path) -> None:
    theirs, ours, config, _ = pair
    dataset = read_dataset(shared / "data" / "person" / "train.json")
    small = replace(config.image, short_side=160, long_side=267)
    still = replace(config, image=small, augment=replace(config.augment, flip_horizontal=0.0))
    samples = [training_sample(dataset, i, still, np.random.default_rng(0)) for i in range(2)]
    assert not any(sample.crowd.any() for sample in samples)  # torchvision knows no crowds
    batch = collate(samples, config.image)
    targets = []
    for sample in samples:
        assert sample.keypoints is not None
        shown = sample.keypoints[..., 2:] > 0
        targets.append(
            {
                "boxes": torch.from_numpy(sample.boxes),
                "labels": torch.from_numpy(sample.labels) + 1,
                "keypoints": torch.from_numpy(np.concatenate([sample.keypoints[..., :2], shown], axis=-1)).float(),
            }
        )
    theirs.transform._skip_resize = True  # type: ignore[union-attr]
    for network in (theirs, ours):
        network.train()
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()  # statistics that do not change, as frozen norms have
    try:
        expected = theirs([sample.image.float() / 255 for sample in samples], targets)
        found = ours(batch.images, batch.targets)
    finally:
        theirs.eval()
        theirs.transform._skip_resize = False  # type: ignore[union-attr]
        ours.eval()
    assert set(found) == set(LOSSES.values())
    for their_name, name in LOSSES.items():
        assert found[name].item() == pytest.approx(expected[their_name].item(), rel=1e-4), name
