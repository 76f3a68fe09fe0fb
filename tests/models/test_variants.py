"""The forms of the network besides the standard one: each learns, detects, and does what its paper says."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from maskrcnn.config import (
    KeypointHeadConfig,
    MaskHeadConfig,
    ModelConfig,
    ResNetConfig,
    RoIConfig,
    TimmConfig,
)
from maskrcnn.config.conventions import OURS, FeatureRules
from maskrcnn.errors import ConfigError, WeightsError
from maskrcnn.models.branches.keypoint import KeypointBranch
from maskrcnn.models.branches.mask import MaskBranch
from maskrcnn.models.branches.mask_head import MLPMaskHead
from maskrcnn.models.branches.point_rend import PointRendBranch, _centres
from maskrcnn.models.deform_conv import DeformConvNorm
from maskrcnn.models.mask_rcnn import MaskRCNN
from maskrcnn.models.pooler import RoIPooler
from maskrcnn.models.resnet import ResNet
from maskrcnn.models.rois import flatten_boxes, sample_rois
from maskrcnn.models.rpn import Proposals
from maskrcnn.models.timm_backbone import TimmBackbone
from maskrcnn.ops.boxes import clip, decode
from maskrcnn.ops.roi_align import roi_align
from maskrcnn.ops.roi_pool import roi_pool, roi_warp
from maskrcnn.predict import Predictor, TorchBackend
from maskrcnn.structures.detections import Detections
from maskrcnn.weights.initialise import read_initial_weights
from small_network import batch_of, lively_network, network_config, sample_of
from variants import BASE, CASCADE, ONE_LEVEL, SMALL_RESNET, VARIANTS, batch_with_points, network_of


@pytest.mark.parametrize("name", VARIANTS)
def test_every_parameter_learns_and_detections_are_complete(name: str) -> None:
    network = network_of(name)
    batch = batch_with_points()
    torch.manual_seed(0)
    losses = network(batch.images, batch.targets)
    torch.stack(list(losses.values())).sum().backward()
    for parameter_name, parameter in network.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert torch.isfinite(parameter.grad).all(), parameter_name
    for loss_name, loss in losses.items():
        assert loss > 0, loss_name
    model = network_config(**VARIANTS[name]).model
    assert ("loss_keypoint" in losses) == (model.keypoint_head is not None)
    assert ("loss_mask" in losses) == (model.mask_head is not None)
    found = network.eval().detect(batch.images, replace(model.detect, max_detections=7))
    assert found.valid.any()
    assert found.boxes.shape == (*found.valid.shape, 4)
    if model.mask_head is not None:
        assert found.mask_probs is not None
        assert found.mask_probs.shape[2] == found.mask_probs.shape[3]
        assert found.mask_probs.min() >= 0
        assert found.mask_probs.max() <= 1
    if model.keypoint_head is not None:
        assert found.keypoints is not None
        assert found.keypoints.shape == (*found.valid.shape, 3, 3)
        inside = (found.keypoints[..., :2] >= found.boxes[..., None, :2] - 1e-3) & (
            found.keypoints[..., :2] <= torch.maximum(found.boxes[..., None, 2:], found.boxes[..., None, :2] + 1) + 1e-3
        )
        assert inside[found.valid].all()


@pytest.mark.parametrize("name", VARIANTS)
def test_a_batch_without_objects_trains(name: str) -> None:
    network = network_of(name)
    batch = batch_of(sample_of(64, 96, []))
    targets = replace(batch.targets, keypoints=torch.zeros(*batch.targets.valid.shape, 3, 3))
    torch.manual_seed(0)
    losses = network(batch.images, targets)
    torch.stack(list(losses.values())).sum().backward()
    for parameter_name, parameter in network.named_parameters():
        assert parameter.grad is None or torch.isfinite(parameter.grad).all(), parameter_name


@pytest.mark.parametrize("name", VARIANTS)
def test_an_image_without_a_detection_is_no_error(name: str) -> None:
    config = network_config(**{**VARIANTS[name], "detect": replace(BASE.detect, score_threshold=1.0)})
    (found,) = Predictor(TorchBackend(lively_network(config).eval()), config).predict(np.zeros((64, 96, 3), np.uint8))
    assert len(found) == 0


def found_on(network: MaskRCNN) -> tuple[list[torch.Tensor], Detections]:
    """Features of an image, and four detections on it."""
    batch = batch_with_points()
    boxes = torch.tensor([[10.0, 10, 40, 40], [50, 20, 90, 60], [0, 0, 96, 64], [30, 30, 34, 35]])[None]
    labels = torch.tensor([[1, 0, 1, 0]])
    found = Detections(boxes, torch.tensor([[0.9, 0.8, 0.7, 0.6]]), labels, torch.ones(1, 4, dtype=torch.bool))
    with torch.no_grad():
        return network.eval().features(batch.images), found


def test_a_softmax_mask_is_where_its_class_wins() -> None:
    network = network_of("softmax masks")
    features, found = found_on(network)
    branch, read = network.roi_heads.mask, network.roi_heads.pooler.on(features)
    assert isinstance(branch, MaskBranch)
    with torch.no_grad():
        probs = branch.detect(read, found).mask_probs
        logits = branch.heads[0](read(*flatten_boxes(found.boxes), branch.config.resolution))
    assert probs is not None
    assert logits.shape[1] == branch.num_classes + 1  # each class, and none of them
    wins = logits.argmax(1) == found.labels[0][:, None, None]
    assert torch.equal(probs[0] > 0.5, wins)
    assert wins.any()
    assert not wins.all()


def test_an_mlp_computes_the_asked_class_only() -> None:
    torch.manual_seed(0)
    head = MLPMaskHead(6, 5, 4, MaskHeadConfig(kind="mlp", hidden=8))
    torch.nn.init.normal_(head.predictor.weight)
    torch.nn.init.normal_(head.predictor.bias)
    features, labels = torch.rand(3, 6, 5, 5), torch.tensor([3, 0, 3])
    every = head(features)
    assert every.shape == (3, 4, 10, 10)
    torch.testing.assert_close(head.of_labels(features, labels), every[torch.arange(3), labels])


def test_point_rend_refines_every_cell_when_it_may() -> None:
    """With as many points as cells the result is the point head at each cell of the final grid."""
    network = network_of("PointRend")
    branch = network.roi_heads.mask
    assert isinstance(branch, PointRendBranch)
    features, found = found_on(network)
    read = network.roi_heads.pooler.on(features)
    boxes, image_index = flatten_boxes(found.boxes)
    full = branch.coarse_head.side * 2**branch.points.subdivision_steps
    with torch.no_grad():
        coarse = branch._coarse(read, boxes, image_index)
        points = _centres(torch.arange(full**2).expand(4, -1), full)
        logits = branch._of_class(branch._refine(read, boxes, image_index, coarse, points), found.labels[0])
        everywhere = torch.sigmoid(logits).view(4, full, full)
        usual = branch.detect(read, found).mask_probs
        branch.points = replace(branch.points, subdivision_points=full**2)
        dense = branch.detect(read, found).mask_probs
    assert usual is not None
    assert dense is not None
    assert dense.shape == usual.shape == (1, 4, full, full)
    torch.testing.assert_close(dense[0], everywhere)
    assert (usual[0] == everywhere).flatten(1).any(1).all()  # the points that were chosen
    assert not torch.equal(usual[0], everywhere)


def test_point_rend_trains_on_the_least_certain_points() -> None:
    branch = network_of("PointRend").roi_heads.mask
    assert isinstance(branch, PointRendBranch)
    ramp = torch.linspace(-1, 1, 7).expand(1, 7, 7)  # 0 in the middle column
    torch.manual_seed(0)
    points = branch._training_points(ramp)
    assert points.shape == (1, branch.points.train_points, 2)
    certain = (points[0, :, 0] - 0.5).abs()
    chosen = int(branch.points.train_points * branch.points.important)
    assert certain[:chosen].max() < 0.5 * branch.points.important / branch.points.oversample * 1.5
    assert certain[chosen:].max() > 0.4  # the others are anywhere


def test_cascade_averages_scores_and_takes_the_last_boxes() -> None:
    network = network_of("cascade")
    features, _ = found_on(network)
    branch = network.roi_heads.box
    windows = torch.tensor([[0, 0, 96, 64]])
    proposals = Proposals(torch.tensor([[[10.0, 10, 40, 40], [50, 20, 90, 60]]]), torch.ones(1, 2, dtype=torch.bool))
    settings = replace(BASE.detect, score_threshold=0.0, nms_iou=1.0)
    read = network.roi_heads.pooler.on([f[:1] for f in features])
    boxes, probs = proposals.boxes[0], []
    with torch.no_grad():
        found = branch.detect(read, proposals, windows, settings)
        for head, weights in zip(branch.heads, [(10.0, 10.0, 5.0, 5.0), *CASCADE.cascade_weights], strict=True):
            logits, deltas = head(read(boxes, torch.zeros(2, dtype=torch.int64), 7))
            probs.append(logits.softmax(-1)[:, :-1])
            boxes = clip(decode(deltas[:, 0], boxes, weights)[None], windows)[0]
    expected = torch.stack(probs).mean(0)
    kept = expected.flatten().sort(descending=True)[0]
    torch.testing.assert_close(found.scores[found.valid], kept[kept > 0])
    for box, score, label in zip(found.boxes[0], found.scores[0], found.labels[0], strict=True):
        row = int((expected[:, label] - score).abs().argmin())
        torch.testing.assert_close(box, boxes[row])


def test_later_stages_of_a_cascade_ask_for_more_overlap() -> None:
    """A box that overlaps by 0.65 and does not move is positive for the first two stages and not for the third."""
    network = network_of("cascade")
    branch = network.roi_heads.box
    batch = batch_of(sample_of(64, 96, [(1, (10, 10, 50, 50))]))
    read = network.roi_heads.pooler.on(network.features(batch.images))
    sure = 20.0 * F.one_hot(torch.tensor(1), branch.num_classes + 1)
    with torch.no_grad():
        for head in branch.heads:
            head.deltas.weight.zero_()
            head.deltas.bias.zero_()
            head.class_logits.weight.zero_()
            head.class_logits.bias.copy_(sure)
    proposals = Proposals(torch.tensor([[[10.0, 10, 50, 36]]]), torch.ones(1, 1, dtype=torch.bool))
    drawn = sample_rois(
        proposals, batch.targets, replace(branch.config, positive_fraction=1.0), OURS.matching, branch.num_classes
    )
    own = (drawn.boxes[0] == proposals.boxes[0]).all(-1)  # the other one is the object itself
    rois = type(drawn)(*(value[:, own] for value in drawn))
    losses, _ = branch.losses(read, rois, batch.targets, batch.images.windows)
    assert losses["loss_class"].mean().item() == pytest.approx(20.0, abs=0.01)


def test_c4_reads_res5_of_each_roi_and_its_mean() -> None:
    network = network_of("C4")
    features, found = found_on(network)
    assert [f.shape[2:] for f in features] == [(4, 6)]  # 64 x 96 at stride 16
    heads = network.roi_heads
    boxes, image_index = flatten_boxes(found.boxes)
    level = torch.zeros(4, dtype=torch.int64)
    with torch.no_grad():
        pooled = roi_align(features, boxes, image_index, level, strides=[16], output_size=7)
        deep = heads.pooler.shared_head(pooled)
        logits = heads.box.heads[0].class_logits(deep.mean((2, 3)))
        found_logits, _ = heads.box.heads[0](heads.pooler.on(features)(boxes, image_index, 7))
    assert deep.shape[2:] == (4, 4)
    torch.testing.assert_close(found_logits, logits)
    names = [name for name in network.state_dict() if ".res5." in name or "shared_head" in name]
    assert names  # one copy of res5, in the head
    assert all(name.startswith("roi_heads.pooler.shared_head.") for name in names)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (RoIConfig(sampling_ratio=0), partial(roi_align, sampling_ratio=0)),
        (RoIConfig(), roi_align),
        (RoIConfig(reduce="max"), partial(roi_align, reduce="max")),
        (RoIConfig(op="warp", reduce="max", sampling_ratio=3), partial(roi_warp, reduce="max", sampling_ratio=3)),
        (RoIConfig(op="warp"), roi_warp),
        (RoIConfig(op="pool", reduce="max"), roi_pool),
    ],
)
def test_the_pooler_is_the_layer_that_the_config_names(config: RoIConfig, expected: Any) -> None:
    features = [torch.randn(2, 3, 16, 24), torch.randn(2, 3, 8, 12)]
    boxes = torch.tensor([[10.0, 10, 40, 43], [3, 2, 95, 60], [0, 0, 300, 300]])
    index = torch.tensor([0, 1, 1])
    config = replace(config, canonical_size=60.0, canonical_level=3)
    pooler = RoIPooler([4, 8], config, torch.nn.Identity(), OURS)
    level = torch.tensor([0, 1, 1])  # sides of 31, 73 and 300 against 60
    found = expected(features, boxes, index, level, strides=[4, 8], output_size=5)
    torch.testing.assert_close(pooler.on(features)(boxes, index, 5), found)
    if expected is roi_align:
        older = RoIPooler([4, 8], config, torch.nn.Identity(), replace(OURS, features=FeatureRules(aligned=False)))
        found = roi_align(features, boxes, index, level, strides=[4, 8], output_size=5, aligned=False)
        torch.testing.assert_close(older.on(features)(boxes, index, 5), found)


def test_dilated_res5_keeps_the_resolution_of_res4() -> None:
    images = torch.rand(1, 3, 64, 96)
    for dilated, shape, strides in ((False, (2, 3), [4, 8, 16, 32]), (True, (4, 6), [4, 8, 16, 16])):
        backbone = ResNet(SMALL_RESNET, dilated=dilated).eval()
        assert backbone.strides == strides
        assert backbone(images)[-1].shape[2:] == shape
    reach = torch.zeros(1, 16 * SMALL_RESNET.width, 9, 9)
    reach[..., 4, 4] = 1
    conv = backbone.res5[0].conv2.conv  # type: ignore[index, union-attr]
    seen = conv(reach[:, : conv.in_channels])[0].abs().sum(0) > 0
    assert seen.nonzero().tolist() == [[y, x] for y in (2, 4, 6) for x in (2, 4, 6)]


@pytest.mark.parametrize("norm", ["frozen_batch_norm", "batch_norm"])
@pytest.mark.parametrize("stride", [1, 2])
def test_a_deformable_convolution_begins_as_a_plain_one_and_then_moves(norm: str, stride: int) -> None:
    torch.manual_seed(0)
    conv = DeformConvNorm(6, stride, 1, 2, modulated=False, norm=norm, eps=1e-5).eval()  # type: ignore[arg-type]
    x = torch.rand(2, 6, 9, 11)
    plain = F.conv2d(x, conv.conv.weight, None, stride, 1, 1, 2)
    expected = plain / (1 + 1e-5) ** 0.5 if norm == "batch_norm" else plain
    torch.testing.assert_close(conv(x), expected)
    assert conv.offset.bias is not None
    with torch.no_grad():
        conv.offset.bias[1::2] = 1.0  # every sample one cell to the right
    shifted = F.pad(x, (0, 1))[..., 1:]
    moved = F.conv2d(shifted, conv.conv.weight, None, stride, 1, 1, 2)
    torch.testing.assert_close(
        conv(x)[..., 1:-1], (moved / (1 + 1e-5) ** 0.5 if norm == "batch_norm" else moved)[..., 1:-1]
    )


def test_modulation_halves_at_first() -> None:
    conv = DeformConvNorm(4, 1, 1, 1, modulated=True, norm="frozen_batch_norm", eps=1e-5)
    x = torch.rand(1, 4, 5, 5)
    torch.testing.assert_close(conv(x), F.conv2d(x, conv.conv.weight, None, 1, 1) / 2)


def test_keypoints_of_an_object_without_points_have_no_loss() -> None:
    network = network_of("keypoints")
    branch = network.roi_heads.keypoint
    assert isinstance(branch, KeypointBranch)
    batch = batch_with_points()
    features = network.features(batch.images)
    proposals = network.rpn.propose(network.rpn(features, (64, 96)), batch.images.sizes_hw)
    box = network.roi_heads.box
    rois = sample_rois(proposals, batch.targets, box.config, OURS.matching, box.num_classes)
    assert batch.targets.keypoints is not None
    read = network.roi_heads.pooler.on(features)
    loss = branch.losses(read, [rois], batch.targets)["loss_keypoint"].mean()
    hidden = replace(batch.targets, keypoints=batch.targets.keypoints * torch.tensor([1.0, 1.0, 0.0]))
    nothing = branch.losses(read, [rois], hidden)["loss_keypoint"].mean()
    assert nothing == 0
    # Worked out RoI by RoI: the points inside each positive box, on its 56 x 56 map.
    terms = []
    for box_xyxy, slot, positive in zip(rois.boxes[0], rois.slot[0], rois.positive[0], strict=True):
        if not positive:
            continue
        logits = branch.head(read(box_xyxy[None], torch.zeros(1, dtype=torch.int64), 14))
        for k, (x, y, v) in enumerate(batch.targets.keypoints[0, slot].tolist()):
            x1, y1, x2, y2 = box_xyxy.tolist()
            if v > 0 and x1 <= x <= x2 and y1 <= y <= y2:
                cell = min(55, int((y - y1) / (y2 - y1) * 56)) * 56 + min(55, int((x - x1) / (x2 - x1) * 56))
                terms.append(-logits[0, k].flatten().log_softmax(0)[cell])
    assert len(terms) >= 3
    torch.testing.assert_close(loss, torch.stack(terms).mean())


def test_a_timm_backbone_gives_a_pyramid_and_takes_a_file(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    config = network_config(backbone=TimmConfig("test_convnext"))
    network = lively_network(config)
    assert isinstance(network.backbone, TimmBackbone)
    batch = batch_of(sample_of(64, 96, [(1, (10, 10, 40, 40))]))
    torch.manual_seed(0)
    losses = network(batch.images, batch.targets)
    torch.stack(list(losses.values())).sum().backward()
    assert all(p.grad is not None for p in network.backbone.parameters())
    assert [f.shape[2:] for f in network.features(batch.images)] == [(16, 24), (8, 12), (4, 6), (2, 3), (1, 2)]
    torch.manual_seed(1)
    whole = timm.create_model("test_convnext")
    torch.save(whole.state_dict(), tmp_path / "whole.pth")
    said = read_initial_weights(tmp_path / "whole.pth", config).fill(network, config)
    assert said == "backbone from whole.pth"
    torch.testing.assert_close(network.backbone.net.state_dict()["stem_0.weight"], whole.state_dict()["stem.0.weight"])
    torch.save({"other": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(WeightsError, match=r"other.pth: stem.* tensors of timm's test_convnext are missing"):
        read_initial_weights(tmp_path / "other.pth", config).fill(network, config)
    with pytest.raises(WeightsError, match="no such file"):
        read_initial_weights(tmp_path / "missing.pth", config).fill(network, config)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("convnext_tinny", r"'convnext_tinny' is no model of timm .*near: convnext"),
        ("test_vit", r"'test_vit' .*strides"),
    ],
)
def test_a_timm_model_that_cannot_serve(name: str, message: str) -> None:
    pytest.importorskip("timm")
    with pytest.raises(ConfigError, match=message):
        TimmBackbone(TimmConfig(name))


def test_a_frozen_timm_backbone_keeps_still() -> None:
    pytest.importorskip("timm")
    backbone = TimmBackbone(TimmConfig("test_convnext", frozen=True)).train()
    assert not backbone.net.training
    assert not any(p.requires_grad for p in backbone.parameters())


def test_imagenet_weights_reach_res5_in_the_head(tmp_path: Path) -> None:
    from torchvision.models import resnet50

    config = network_config(
        backbone=ResNetConfig(depth=50), neck="c4", anchors=ONE_LEVEL, box_head=replace(BASE.box_head, layers=0)
    )
    torch.manual_seed(0)
    theirs = resnet50()
    torch.save(theirs.state_dict(), tmp_path / "r50.pth")
    network = lively_network(config, seed=1)
    read_initial_weights(tmp_path / "r50.pth", config).fill(network, config)
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        network.eval()
        deep = network.roi_heads.pooler.shared_head(network.backbone(images)[-1])
        theirs.eval().avgpool = torch.nn.Identity()
        theirs.fc = torch.nn.Identity()
        torch.testing.assert_close(deep.flatten(1), theirs(images), atol=1e-4, rtol=1e-3)


def test_the_model_config_names_what_it_holds() -> None:
    assert ModelConfig().neck == "fpn"
    assert ModelConfig(keypoint_head=KeypointHeadConfig(), mask_head=None).keypoint_head is not None
