"""The network as a whole: losses, detections, and what must not change them."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torchvision.models import WeightsEnum
from torchvision.models.detection import (
    FasterRCNN_ResNet50_FPN_Weights,
    KeypointRCNN_ResNet50_FPN_Weights,
    MaskRCNN_ResNet50_FPN_V2_Weights,
    MaskRCNN_ResNet50_FPN_Weights,
)

from maskrcnn.config import BoxHeadConfig, DetectConfig, MaskHeadConfig, ResNetConfig
from maskrcnn.config.presets import PRESETS, preset
from maskrcnn.models.build import build_model
from maskrcnn.models.mask_rcnn import MaskRCNN
from maskrcnn.models.resnet import Bottleneck
from maskrcnn.structures.detections import Detections
from maskrcnn.structures.images import ImageBatch
from small_network import Objects, batch_of, lively_network, network_config, sample_of

LOSSES = ["loss_rpn_class", "loss_rpn_box", "loss_class", "loss_box", "loss_mask"]
TWO: Objects = [(1, (10, 10, 40, 40)), (0, (50, 20, 90, 60))]
SETTINGS = DetectConfig(score_threshold=0.02)


@pytest.fixture(scope="module")
def network() -> MaskRCNN:
    return lively_network(network_config())


def gradients(network: MaskRCNN, losses: dict[str, torch.Tensor]) -> dict[str, torch.Tensor | None]:
    network.zero_grad()
    torch.stack(list(losses.values())).sum().backward()
    return {name: p.grad for name, p in network.named_parameters() if p.requires_grad}


CASES = {
    "objects in every image": [sample_of(64, 96, TWO), sample_of(60, 70, TWO[:1], seed=1)],
    "one image without objects": [sample_of(64, 96, TWO), sample_of(60, 70, [], seed=1)],
    "no object in the batch": [sample_of(64, 96, []), sample_of(60, 70, [], seed=1)],
    "crowds only": [sample_of(64, 96, [(-1, (0, 0, 96, 64))]), sample_of(60, 70, [(-1, (5, 5, 30, 30))], seed=1)],
    "objects without masks": [sample_of(64, 96, TWO, with_masks=False)],
    "an object of one pixel": [sample_of(64, 96, [(0, (95, 63, 96, 64))])],
    "one image": [sample_of(33, 95, [(0, (0, 0, 95, 33))])],
}


@pytest.mark.parametrize("case", CASES)
def test_five_finite_losses_reach_every_parameter(network: MaskRCNN, case: str) -> None:
    batch = batch_of(*CASES[case])
    torch.manual_seed(0)
    losses = network.train()(batch.images, batch.targets)
    assert list(losses) == LOSSES
    for name, loss in losses.items():
        assert loss.shape == ()
        assert loss.dtype == torch.float32
        assert torch.isfinite(loss), name
    for name, gradient in gradients(network, losses).items():
        assert gradient is not None, name
        assert torch.isfinite(gradient).all(), name
    if case in ("no object in the batch", "crowds only"):
        assert losses["loss_rpn_box"] == losses["loss_box"] == losses["loss_mask"] == 0
    if case == "objects without masks":
        assert losses["loss_mask"] == 0
        assert losses["loss_box"] > 0


def test_losses_repeat_with_their_seed(network: MaskRCNN) -> None:
    batch = batch_of(*CASES["objects in every image"])
    losses = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        losses.append(network.train()(batch.images, batch.targets))
    a, b, c = losses
    assert all(torch.equal(a[name], b[name]) for name in LOSSES)
    assert any(not torch.equal(a[name], c[name]) for name in LOSSES)


def test_a_step_against_the_gradient_lowers_the_loss() -> None:
    network = build_model(network_config()).train()
    batch = batch_of(*CASES["objects in every image"])
    optimiser = torch.optim.SGD(network.parameters(), lr=0.02, momentum=0.9)
    totals = []
    for _ in range(12):
        torch.manual_seed(0)
        losses = network(batch.images, batch.targets)
        gradients(network, losses)
        optimiser.step()
        totals.append(sum(loss.item() for loss in losses.values()))
    assert totals[-1] < 0.8 * totals[0]


def test_detections_are_sorted_padded_and_inside(network: MaskRCNN) -> None:
    images = batch_of(*CASES["one image without objects"]).images
    found = network.eval().detect(images, SETTINGS)
    count = found.valid.shape[1]
    assert count <= SETTINGS.max_detections
    assert found.boxes.shape == (2, count, 4)
    assert found.mask_probs is not None
    assert found.mask_probs.shape == (2, count, 28, 28)
    assert found.valid.any(1).all()
    assert ((found.mask_probs >= 0) & (found.mask_probs <= 1)).all()
    for boxes, scores, labels, valid, size in zip(
        found.boxes, found.scores, found.labels, found.valid, images.sizes_hw.tolist(), strict=True
    ):
        assert (scores[:-1] >= scores[1:]).all()
        assert (scores[valid] > SETTINGS.score_threshold).all()
        assert not scores[~valid].any()
        assert ((labels >= 0) & (labels < 2)).all() or network.roi_heads.box.num_classes > 2
        assert (boxes[valid][:, 2] <= size[1]).all()
        assert (boxes[valid][:, 3] <= size[0]).all()


def test_detect_leaves_no_gradient_and_no_trace(network: MaskRCNN) -> None:
    before = {name: value.clone() for name, value in network.state_dict().items()}
    found = network.eval().detect(batch_of(*CASES["one image"]).images, SETTINGS)
    assert not found.scores.requires_grad
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


def test_nothing_above_the_threshold(network: MaskRCNN) -> None:
    images = batch_of(*CASES["objects in every image"]).images
    found = network.eval().detect(images, replace(SETTINGS, score_threshold=1.0))
    assert not found.valid.any()
    assert not found.scores.any()
    assert found.mask_probs is not None
    assert not found.mask_probs.any()


@pytest.mark.parametrize("most", [1, 3])
def test_the_best_are_kept(network: MaskRCNN, most: int) -> None:
    images = batch_of(*CASES["objects in every image"]).images
    everything = network.eval().detect(images, SETTINGS)
    found = network.detect(images, replace(SETTINGS, max_detections=most))
    assert found.scores.shape == (2, most)
    torch.testing.assert_close(found.scores, everything.scores[:, :most])
    same = (found.boxes[:, :, None] == everything.boxes[:, None]).all(-1)  # not by rank: equal scores may change places
    assert same.any(-1).all()


def of_one(found: Detections, i: int) -> Detections:
    keep = found.valid[i]
    assert found.mask_probs is not None
    return Detections(
        found.boxes[i][keep], found.scores[i][keep], found.labels[i][keep], keep, found.mask_probs[i][keep]
    )


def test_an_image_does_not_depend_on_the_others_in_its_batch(network: MaskRCNN) -> None:
    """On the same canvas: around it, zeros pass through layers with biases, as in every Mask R-CNN."""
    network.eval()
    batch = batch_of(*CASES["objects in every image"], sample_of(40, 90, TWO[:1], seed=5)).images
    together = network.detect(batch, SETTINGS)
    for i in range(3):
        part = slice(i, i + 1)
        alone = network.detect(
            ImageBatch(batch.pixels[part], batch.sizes_hw[part], batch.windows[part], batch.frames[part]), SETTINGS
        )
        a, b = of_one(together, i), of_one(alone, 0)
        assert len(a.scores) > 3
        assert torch.equal(a.labels, b.labels)
        torch.testing.assert_close(a.boxes, b.boxes, rtol=0, atol=1e-2)
        torch.testing.assert_close(a.scores, b.scores, rtol=0, atol=1e-4)
        torch.testing.assert_close(a.mask_probs, b.mask_probs, rtol=0, atol=1e-3)


def test_what_lies_in_the_padding_does_not_matter(network: MaskRCNN) -> None:
    network.eval()
    clean = batch_of(sample_of(40, 70, TWO[:1])).images
    dirty = replace(clean, pixels=clean.pixels.clone())
    dirty.pixels[:, :, 40:] = 200
    dirty.pixels[:, :, :, 70:] = 100
    a, b = network.detect(clean, SETTINGS), network.detect(dirty, SETTINGS)
    assert torch.equal(a.boxes, b.boxes)
    assert torch.equal(a.scores, b.scores)


def test_uint8_and_float_images_are_the_same(network: MaskRCNN) -> None:
    network.eval()
    images = batch_of(*CASES["one image"]).images
    a, b = network.normalise(images), network.normalise(replace(images, pixels=images.pixels.float()))
    assert torch.equal(a, b)
    mean, std = torch.tensor([123.675, 116.28, 103.53]), torch.tensor([58.395, 57.12, 57.375])
    expected = (images.pixels[0, :, 3, 4].float() - mean) / std
    torch.testing.assert_close(a[0, :, 3, 4], expected)
    assert not a[:, :, 33:].any()


def test_inference_mode_and_fake_tensors_leave_nothing_behind() -> None:
    """Anchors are kept between calls: those made in a special mode must not turn up in ordinary ones."""
    network = lively_network(network_config())
    batch = batch_of(*CASES["objects in every image"])
    with torch.inference_mode():
        network.eval().detect(batch.images, SETTINGS)
    gradients(network, network.train()(batch.images, batch.targets))

    other = lively_network(network_config())
    images = batch_of(sample_of(96, 96, TWO)).images
    grids = [(24, 24), (12, 12), (6, 6), (3, 3), (2, 2)]
    with FakeTensorMode(allow_non_fake_inputs=True):
        other.rpn.anchors(grids, (96, 96), torch.device("cpu"))
    found = other.eval().detect(images, SETTINGS)
    assert type(found.boxes) is torch.Tensor
    assert found.valid.any()


def test_faster_rcnn_is_the_network_without_masks() -> None:
    network = lively_network(network_config(mask_head=None))
    batch = batch_of(*CASES["objects in every image"])
    assert list(network.train()(batch.images, batch.targets)) == LOSSES[:4]
    found = network.eval().detect(batch.images, SETTINGS)
    assert found.valid.any()
    assert found.mask_probs is None


@pytest.mark.parametrize("classes", [1, 3, 300])
@pytest.mark.parametrize("agnostic", [False, True])
def test_any_number_of_classes(classes: int, agnostic: bool) -> None:
    base = network_config().model
    assert base.mask_head is not None
    config = network_config(
        num_classes=classes,
        box_head=replace(base.box_head, class_agnostic=agnostic),
        mask_head=replace(base.mask_head, class_agnostic=agnostic),
    )
    network = lively_network(config)
    batch = batch_of(sample_of(64, 96, [(classes - 1, (10, 10, 40, 40))]))
    losses = network.train()(batch.images, batch.targets)
    assert all(torch.isfinite(loss) for loss in losses.values())
    assert all(g is not None for g in gradients(network, losses).values())
    found = network.eval().detect(batch.images, replace(SETTINGS, score_threshold=0.5 / (classes + 1)))
    assert found.valid.any()
    assert found.labels.max() < classes


def test_bfloat16_losses_are_near() -> None:
    network = build_model(network_config()).train()
    batch = batch_of(*CASES["objects in every image"])
    torch.manual_seed(0)
    exact = network(batch.images, batch.targets)
    with torch.autocast("cpu", torch.bfloat16):
        torch.manual_seed(0)
        found = network(batch.images, batch.targets)
    for name in LOSSES:
        assert found[name].dtype == torch.float32
        assert found[name].item() == pytest.approx(exact[name].item(), rel=0.1, abs=0.02), name


@pytest.mark.slow
@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_has_the_parameters_it_promises(name: str) -> None:
    with torch.device("meta"):
        network = build_model(preset(name))
    millions = sum(p.numel() for p in network.parameters()) / 1e6
    promised = re.search(r"([\d.]+) M parameters", PRESETS[name].__doc__ or "")
    if promised:
        assert millions == pytest.approx(float(promised[1]), abs=0.0501)


@pytest.mark.parametrize(
    ("name", "classes", "published"),
    [
        ("mask_rcnn_R_50_FPN", 90, MaskRCNN_ResNet50_FPN_Weights.COCO_V1),
        ("mask_rcnn_R_50_FPN_V2", 90, MaskRCNN_ResNet50_FPN_V2_Weights.COCO_V1),
        ("faster_rcnn_R_50_FPN", 90, FasterRCNN_ResNet50_FPN_Weights.COCO_V1),
        ("keypoint_rcnn_R_50_FPN", 1, KeypointRCNN_ResNet50_FPN_Weights.COCO_V1),
    ],
)
def test_parameters_are_as_many_as_torchvision_publishes(name: str, classes: int, published: WeightsEnum) -> None:
    config = preset(name)
    with torch.device("meta"):
        network = build_model(replace(config, model=replace(config.model, num_classes=classes)))
    # Rows of a class that has neither box nor mask.
    background = 4 * (1024 + 1) + (256 + 1 if config.model.mask_head else 0)
    assert sum(p.numel() for p in network.parameters()) + background == published.meta["num_params"]


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if re.search("tiny|R_18|mask_rcnn_R_50_FPN$", name) else pytest.mark.slow)
        for name in PRESETS
    ],
)
def test_every_preset_trains_and_detects(name: str) -> None:
    config = preset(name)
    few = replace(config.model.rpn, post_nms_train=60, post_nms_test=60)  # RoIs: their number is no matter here
    config = replace(config, model=replace(config.model, rpn=few, box_head=replace(config.model.box_head, samples=16)))
    torch.manual_seed(0)
    network = build_model(config)
    for block in network.backbone.modules():  # so that 50 blocks of random weights do not explode
        if isinstance(block, Bottleneck):
            torch.nn.init.constant_(block.conv3.norm.weight, 0.2)
    assert network.training
    kernels = [m.weight for m in network.modules() if isinstance(m, torch.nn.Conv2d) and m.kernel_size == (3, 3)]
    assert kernels
    assert all(weight.is_contiguous(memory_format=torch.channels_last) for weight in kernels)
    batch = batch_of(sample_of(64, 96, [(0, box) for _, box in TWO]), sample_of(60, 70, [(0, TWO[0][1])], seed=1))
    count = config.model.keypoint_head.num_keypoints if config.model.keypoint_head else 1
    points = torch.tensor([20.0, 20.0, 2.0]).expand(2, 2, count, 3)
    torch.manual_seed(0)
    losses = network(batch.images, replace(batch.targets, keypoints=points))
    for parameter, gradient in gradients(network, losses).items():
        assert gradient is not None, parameter
        assert torch.isfinite(gradient).all(), parameter
    found = network.eval().detect(batch.images, replace(config.model.detect, score_threshold=0.0, max_detections=5))
    assert found.boxes.shape == (2, 5, 4)
    assert found.valid.all()
    for found_part, head in (
        (found.mask_probs, config.model.mask_head),
        (found.keypoints, config.model.keypoint_head),
    ):
        assert (found_part is None) == (head is None)
        assert found_part is None or torch.isfinite(found_part).all()


@pytest.mark.parametrize("case", CASES)
def test_losses_on_decoded_boxes_stay_finite(case: str) -> None:
    base = network_config().model
    giou = network_config(rpn=replace(base.rpn, box_loss="giou"), box_head=replace(base.box_head, box_loss="giou"))
    network = lively_network(giou).train()
    batch = batch_of(*CASES[case])
    torch.manual_seed(0)
    losses = network(batch.images, batch.targets)
    for name, gradient in gradients(network, losses).items():
        assert gradient is not None, name
        assert torch.isfinite(gradient).all(), name
    assert 0 <= losses["loss_box"] <= 2


NORMED: dict[str, Any] = {
    "backbone": ResNetConfig(depth=10, width=32, norm="batch_norm", frozen_stages=0),
    "fpn_norm": "batch_norm",
    "box_head": BoxHeadConfig(convs=2, conv_channels=32, layers=1, hidden=64, samples=32, norm="batch_norm"),
    "mask_head": MaskHeadConfig(convs=2, channels=32, samples=8, norm="batch_norm"),
}


@pytest.mark.parametrize("case", CASES)
def test_norms_in_the_heads_stay_finite(case: str) -> None:
    """Also where the mask branch has nothing to read, and so nothing to take statistics of."""
    network = build_model(network_config(**NORMED))
    batch = batch_of(*CASES[case])
    torch.manual_seed(0)
    losses = network(batch.images, batch.targets)
    for name, gradient in gradients(network, losses).items():
        assert gradient is not None, name
        assert torch.isfinite(gradient).all(), name
    for name, value in network.named_buffers():
        assert torch.isfinite(value).all(), name
