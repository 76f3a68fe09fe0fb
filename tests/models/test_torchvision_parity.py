"""The whole network against torchvision's, with the same weights on real images: detections, losses, gradients."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from maskrcnn.config import AugmentConfig, Config
from maskrcnn.data.coco import load_coco
from maskrcnn.data.loader import collate
from maskrcnn.data.transforms import training_sample
from maskrcnn.models.mask_rcnn import MaskRCNN
from maskrcnn.predict import Predictor
from maskrcnn.structures.image_file import read_image
from torchvision_copy import copy_weights, our_layout, our_name, torchvision_model, torchvisions_rules

LANDSCAPE, PORTRAIT = "000000000139.jpg", "000000000802.jpg"  # 426 x 640 and 640 x 424


@dataclass
class Pair:
    """One network in both packages."""

    theirs: nn.Module
    ours: MaskRCNN
    config: Config


def images_of(shared: Path) -> list[np.ndarray]:
    return [read_image(shared / "data" / "coco" / "val" / name) for name in (LANDSCAPE, PORTRAIT)]


def as_float(image: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(image).permute(2, 0, 1).float() / 255


def make_pair(shared: Path, short_side: int, long_side: int, proposals: int) -> Pair:
    theirs = torchvision_model(short_side, long_side, proposals, [as_float(images_of(shared)[0])])
    config = torchvisions_rules(short_side, long_side, proposals)
    return Pair(theirs, copy_weights(theirs, config), config)


@pytest.fixture(scope="module")
def small(shared: Path) -> Pair:
    return make_pair(shared, 224, 373, 300)


def assert_same_detections(pair: Pair, images: list[np.ndarray]) -> None:
    with torch.no_grad():
        expected = pair.theirs([as_float(image) for image in images])
    found = Predictor(pair.ours, pair.config).predict_arrays(images)
    for theirs, ours in zip(expected, found, strict=True):
        assert len(ours) == len(theirs["boxes"]) >= 30
        assert len(set(ours.labels.tolist())) >= 10
        assert ours.masks is not None
        dense = ours.masks.dense()
        free = np.ones(len(ours), dtype=bool)
        assert (np.diff(ours.scores) <= 0).all()
        for box, score, label, probability in zip(
            theirs["boxes"].numpy(),
            theirs["scores"].numpy(),
            theirs["labels"].numpy() - 1,
            theirs["masks"][:, 0].numpy(),
            strict=True,
        ):
            # Not by rank: two equal scores may change places.
            distance = np.abs(ours.boxes - box).max(1) + 1e6 * (~free | (ours.labels != label))
            match = int(distance.argmin())
            free[match] = False
            assert distance[match] < 0.01
            assert abs(ours.scores[match] - score) < 1e-4
            theirs_mask, ours_mask = probability > 0.5, dense[match]
            differ, either = (theirs_mask ^ ours_mask).sum(), (theirs_mask | ours_mask).sum()
            assert differ <= max(2, 0.001 * either)  # IoU 0.999; of a small mask two pixels on the threshold


def test_detections(small: Pair, shared: Path) -> None:
    """Boxes, scores, labels and masks of a batch of a landscape and a portrait image."""
    assert_same_detections(small, images_of(shared))


def test_every_rule_that_the_config_turns_changes_something(small: Pair, shared: Path) -> None:
    """So that the test above would notice if one of them were not obeyed."""
    image = images_of(shared)[:1]
    model = small.config.model
    base = Predictor(small.ours, small.config).predict_arrays(image)[0]
    assert model.mask_head is not None
    for changed in (
        replace(small.config, image=replace(small.config.image, kernel="antialias")),
        replace(small.config, image=replace(small.config.image, mean=(0.0, 0.0, 0.0))),
        replace(small.config, model=replace(model, anchors=replace(model.anchors, rounded=False))),
        replace(small.config, model=replace(model, anchors=replace(model.anchors, stride="constant"))),
        replace(small.config, model=replace(model, roi_align=replace(model.roi_align, aligned=True))),
        replace(small.config, model=replace(model, mask_head=replace(model.mask_head, paste="pixel_centres"))),
    ):
        found = Predictor(copy_weights(small.theirs, changed), changed).predict_arrays(image)[0]
        same_boxes = len(found) == len(base) and np.abs(found.boxes - base.boxes).max() < 0.01
        assert not (same_boxes and found.masks == base.masks)


@pytest.mark.slow
def test_detections_at_full_size(shared: Path) -> None:
    assert_same_detections(make_pair(shared, 800, 1333, 1000), images_of(shared))


def test_losses_and_gradients(small: Pair, shared: Path) -> None:
    """All anchors and proposals in the loss, so that nothing is drawn; images at their own size."""
    dataset = load_coco(shared / "data" / "coco" / "val.json")
    wanted = [i for i, record in enumerate(dataset.records) if record.path.name in ("000000020992.jpg", PORTRAIT)]
    config = replace(small.config, image=replace(small.config.image, scale=1.0))
    rng = np.random.default_rng(0)
    samples = [training_sample(dataset, i, config.image, AugmentConfig(flip_horizontal=0.0), rng) for i in wanted]
    assert len(samples) == 2
    assert not any(sample.crowd.any() for sample in samples)
    batch = collate(samples, config.image.divisor)

    their_targets = []
    for sample in samples:
        masks = np.zeros((len(sample.boxes), *sample.image.shape[1:]), dtype=np.uint8)
        for mask, (crop, (x, y)) in zip(masks, sample.crops, strict=True):
            mask[y : y + crop.shape[0], x : x + crop.shape[1]] = crop
        their_targets.append(
            {
                "boxes": torch.from_numpy(sample.boxes),
                "labels": torch.from_numpy(sample.labels) + 1,
                "masks": torch.from_numpy(masks),
            }
        )
    theirs, ours = small.theirs, small.ours
    theirs.train()
    theirs.backbone.body.eval()  # norms that do not change, as ours
    theirs.transform._skip_resize = True
    ours.train()
    try:
        expected = theirs([sample.image.float() / 255 for sample in samples], their_targets)
        found = ours(batch.images, batch.targets)
    finally:
        theirs.eval()
        theirs.transform._skip_resize = False
        ours.eval()

    pairs = {
        "loss_objectness": "loss_rpn_class",
        "loss_rpn_box_reg": "loss_rpn_box",
        "loss_classifier": "loss_class",
        "loss_box_reg": "loss_box",
        "loss_mask": "loss_mask",
    }
    assert set(found) == set(pairs.values())
    for their_name, name in pairs.items():
        assert found[name].item() == pytest.approx(expected[their_name].item(), rel=1e-4), name

    sum(expected.values()).backward()  # type: ignore[union-attr]
    sum(found.values()).backward()  # type: ignore[union-attr]
    gradients = dict(ours.named_parameters())
    compared = 0
    for name, parameter in theirs.named_parameters():
        ours_gradient = gradients[our_name(name)].grad if our_name(name) in gradients else None
        if ours_gradient is None:  # norms and the frozen stages
            assert name.startswith("backbone.body.")
            continue
        assert parameter.grad is not None
        their_gradient = our_layout(name, parameter.grad)
        assert (ours_gradient - their_gradient).norm() <= 1e-3 * their_gradient.norm() + 1e-9, name
        compared += 1
    assert compared > 60
