"""The whole network against torchvision's, with the same weights on real images: detections, losses, gradients."""

from __future__ import annotations

import copy
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from maskrcnn.benchmark.pair import copy_weights
from maskrcnn.config import Config
from maskrcnn.data.formats import read_dataset
from maskrcnn.data.loading.loader import collate
from maskrcnn.data.loading.sample import Sample
from maskrcnn.files.images import read_image
from maskrcnn.models import norm
from maskrcnn.models.mask_rcnn import MaskRCNN
from maskrcnn.predict import Predictor, TorchBackend
from maskrcnn.structures.frame import frame_of_size
from maskrcnn.weights.frameworks.torchvision.layout import our_layout
from maskrcnn.weights.frameworks.torchvision.names import TABLE
from maskrcnn.weights.frameworks.torchvision.settings import Version
from torchvision_copy import in_one_batch, torchvision_model, torchvisions_rules

PREDICTIONS = re.compile(r"cls_logits|bbox_pred|cls_score|mask_fcn_logits")
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


def make_pair(shared: Path, version: Version, *sizes: int) -> Pair:
    """`sizes` are the short side, the long side, and the numbers of proposals and detections."""
    config = torchvisions_rules(version, *sizes)
    theirs = torchvision_model(version, config, [as_float(images_of(shared)[0])])
    return Pair(theirs, copy_weights(theirs, config), config)


@pytest.fixture(scope="module", params=[1, 2], ids=["v1", "v2"])
def small(shared: Path, request: pytest.FixtureRequest) -> Pair:
    return make_pair(shared, request.param, 224, 373, 200, 40)


def with_double_layers(pair: Pair) -> Pair:
    """The same pair with every layer in float64; images are still resized and normalised in float32 on both sides.

    An untrained network enlarges float32's rounding: torchvision's own scores move by up to 1e-3 when only the order of
    its sums changes, and that order depends on the processor. With float64 layers only the rules are compared.
    """
    theirs, ours = copy.deepcopy(pair.theirs).double(), copy.deepcopy(pair.ours).double()
    ours.pixel_mean, ours.pixel_std = pair.ours.pixel_mean, pair.ours.pixel_std
    for network in (theirs, ours):
        network.backbone.register_forward_pre_hook(lambda _, inputs: (inputs[0].double(),))
    return Pair(theirs, ours, pair.config)


def assert_same_detections(
    pair: Pair, images: list[np.ndarray], *, box_tolerance: float = 0.01, score_tolerance: float = 1e-4
) -> None:
    """Box edges differ by less than `box_tolerance` pixels, scores by less than `score_tolerance`."""
    with torch.no_grad():
        expected = pair.theirs([as_float(image) for image in images])
    found = in_one_batch(Predictor(TorchBackend(pair.ours), pair.config), images)
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
            assert distance[match] < box_tolerance
            assert abs(ours.scores[match] - score) < score_tolerance
            theirs_mask, ours_mask = probability > 0.5, dense[match]
            differ, either = (theirs_mask ^ ours_mask).sum(), (theirs_mask | ours_mask).sum()
            assert differ <= max(2, 0.001 * either)  # IoU 0.999; of a small mask two pixels on the threshold


@pytest.mark.slow
def test_detections(small: Pair, shared: Path) -> None:
    """Boxes, scores, labels and masks of a batch of a landscape and a portrait image, whatever the processor."""
    assert_same_detections(with_double_layers(small), images_of(shared), box_tolerance=3e-3, score_tolerance=4e-5)


@pytest.mark.slow
def test_detections_in_float32(shared: Path) -> None:
    """As a user gets them."""
    assert_same_detections(make_pair(shared, 1, 224, 373, 200, 40), images_of(shared))


@pytest.mark.slow
def test_detections_at_full_size(shared: Path) -> None:
    assert_same_detections(make_pair(shared, 1, 800, 1333, 1000, 100), images_of(shared))


def cut_out(shared: Path, name: str, window: tuple[slice, slice]) -> tuple[Sample, dict[str, torch.Tensor]]:
    """A window of an image as if it were the whole: our sample, and torchvision's target."""
    dataset = read_dataset(shared / "data" / "coco" / "val.json")
    index = next(i for i, record in enumerate(dataset.records) if record.path.name == name)
    record, annotations = dataset.records[index], dataset.annotations(index)
    assert not annotations.crowd.any()  # torchvision knows no crowds
    boxes, labels, crops, dense = [], [], [], []
    for i, label in enumerate(annotations.labels):
        full = np.zeros((record.height, record.width), dtype=np.uint8)
        crop, (x, y) = dataset.annotations(index).rle(i).crop()
        full[y : y + crop.shape[0], x : x + crop.shape[1]] = crop
        mask = np.ascontiguousarray(full[window])
        if mask.sum() < 20:
            continue
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        boxes.append((columns[0], rows[0], columns[-1] + 1, rows[-1] + 1))
        crops.append((mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1], (int(columns[0]), int(rows[0]))))
        labels.append(label)
        dense.append(mask)
    image = torch.from_numpy(np.ascontiguousarray(read_image(record.path)[window])).permute(2, 0, 1)
    sample = Sample(
        image=image,
        boxes=np.array(boxes, dtype=np.float32),
        labels=np.array(labels),
        crowd=np.zeros(len(boxes), dtype=bool),
        crops=crops,
        frame=frame_of_size((image.shape[1], image.shape[2]), (image.shape[1], image.shape[2])),
        image_id=record.image_id,
    )
    target = {
        "boxes": torch.from_numpy(sample.boxes),
        "labels": torch.from_numpy(sample.labels) + 1,
        "masks": torch.from_numpy(np.stack(dense)),
    }
    return sample, target


@pytest.mark.slow
@pytest.mark.parametrize(("convolution", "tolerance"), [("direct", 1e-4), ("winograd", 3e-4)])
def test_losses_and_gradients(
    small: Pair, shared: Path, monkeypatch: pytest.MonkeyPatch, convolution: str, tolerance: float
) -> None:
    """All anchors and proposals in the loss, so that nothing is drawn; images at their own size.

    Gradients of the predictions are held to `tolerance`: with the arithmetic that torchvision has too, and with the one
    that large convolutions have in our training.
    """
    if convolution == "direct":
        monkeypatch.setattr(norm, "convolve", F.conv2d)
    small.theirs.zero_grad()
    small.ours.zero_grad()
    cuts = [
        cut_out(shared, LANDSCAPE, (slice(180, 340), slice(300, 490))),
        cut_out(shared, PORTRAIT, (slice(200, 380), slice(110, 260))),
    ]
    samples, their_targets = [sample for sample, _ in cuts], [target for _, target in cuts]
    assert all(len(sample.boxes) > 0 for sample in samples)
    batch = collate(samples, small.config.image)

    theirs, ours = small.theirs, small.ours
    theirs.transform._skip_resize = True
    for network in (theirs, ours):
        network.train()
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()  # statistics that do not change, as frozen norms have
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
    gradients, names = dict(ours.named_parameters()), TABLE.our_names(theirs.state_dict())
    compared = 0
    for name, parameter in theirs.named_parameters():
        our = names[name]
        ours_gradient = gradients[our].grad if our in gradients else None
        if ours_gradient is None:  # norms and the frozen stages
            assert name.startswith("backbone.body.")
            continue
        assert parameter.grad is not None
        their_gradient = our_layout(our, parameter.grad, small.config)
        # Where rounding decides the sign before a ReLU, a unit's gradient comes or goes: the more of them lie
        # above a layer, the more. The predictions themselves have none.
        allowed = tolerance if PREDICTIONS.search(name) else 3e-2 if name.startswith("backbone.") else 1e-2
        assert (ours_gradient - their_gradient).norm() <= allowed * their_gradient.norm(), name
        compared += 1
    assert compared > 60
