"""RPN, box head and mask head one by one."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from maskrcnn.config import (
    BoxHeadConfig,
    DetectConfig,
    KeypointHeadConfig,
    MaskHeadConfig,
    ResNetConfig,
    RPNConfig,
)
from maskrcnn.config.conventions import OURS, LossRules
from maskrcnn.models.branches.box_head import BoxHead
from maskrcnn.models.branches.mask_head import MaskHead
from maskrcnn.models.build import build_model
from maskrcnn.models.losses import mean_losses
from maskrcnn.models.rois import positive_slots, sample_rois
from maskrcnn.models.rpn import Proposals, RPNHead
from small_network import batch_of, lively_network, network_config, sample_of


def test_rpn_orders_rows_columns_anchors() -> None:
    head = RPNHead(4, 3)
    feature = torch.rand(2, 4, 5, 6)
    logits, deltas = head(feature)
    assert logits.shape == (2, 5 * 6 * 3)
    assert deltas.shape == (2, 5 * 6 * 3, 4)
    x = torch.relu(head.convs[0](feature))
    raw, raw_deltas = head.objectness(x), head.deltas(x)
    y, x_, a = 3, 2, 1
    number = (y * 6 + x_) * 3 + a
    assert torch.equal(logits[:, number], raw[:, a, y, x_])
    assert torch.equal(deltas[:, number], raw_deltas[:, 4 * a : 4 * a + 4, y, x_])


def test_proposals_have_one_shape_are_inside_and_best_first() -> None:
    network = lively_network(network_config()).eval()
    shapes = set()
    for objects in ([], [(0, (10, 10, 40, 40))]):
        batch = batch_of(sample_of(64, 96, objects), sample_of(50, 70, [], seed=1))
        with torch.no_grad():
            output = network.rpn(network.features(batch.images), batch.images.pixels.shape[-2:])
        proposals = network.rpn.propose(output, batch.images.sizes_hw)
        shapes.add(tuple(proposals.boxes.shape))
        for boxes, valid, (height, width) in zip(*proposals, batch.images.sizes_hw.tolist(), strict=True):
            assert valid.any()
            assert not boxes[~valid].any()
            assert boxes.min() >= 0
            assert (boxes[:, 2] <= width).all()
            assert (boxes[:, 3] <= height).all()
            assert ((boxes[:, 2:] - boxes[:, :2])[valid] > 0).all()
            assert not (valid[1:] & ~valid[:-1]).any()  # empty slots come last
    assert len(shapes) == 1
    assert shapes == {(2, network.rpn.config.post_nms_test, 4)}


def test_box_head_reads_rows_columns_channels() -> None:
    head = BoxHead(4, 3, 5, BoxHeadConfig(resolution=3, hidden=8))
    features = torch.rand(6, 4, 3, 3)
    logits, deltas = head(features.contiguous(memory_format=torch.channels_last))
    flat = features.permute(0, 2, 3, 1).reshape(6, -1)
    hidden = torch.relu(head.layers[1](torch.relu(head.layers[0](flat))))
    torch.testing.assert_close(logits, head.class_logits(hidden))
    torch.testing.assert_close(deltas, head.deltas(hidden).view(6, 5, 4))


@pytest.mark.parametrize("convs", [0, 1, 4])
def test_mask_head_computes_the_asked_class_only_and_right(convs: int) -> None:
    torch.manual_seed(0)
    head = MaskHead(6, 5, MaskHeadConfig(convs=convs, channels=8))
    head.predictor.weight.data.normal_()
    assert head.predictor.bias is not None
    head.predictor.bias.data.normal_()
    features, labels = torch.rand(4, 6, 7, 7), torch.tensor([0, 4, 2, 2])
    found = head.of_labels(features, labels)
    assert found.shape == (4, 14, 14)
    x = features
    for conv in head.convs:
        x = torch.relu(conv(x))
    every_class = head.predictor(torch.relu(head.upsample(x)))
    expected = torch.stack([every_class[i, k] for i, k in enumerate(labels)])
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert head.of_labels(features[:0], labels[:0]).shape == (0, 14, 14)


def test_class_agnostic_heads_are_specific_ones_with_equal_rows() -> None:
    """A class-specific network whose classes all have the same boxes and masks finds what the agnostic one finds."""
    heads = {"box_head": BoxHeadConfig(samples=32, hidden=64), "mask_head": MaskHeadConfig(convs=1, channels=32)}
    specific = lively_network(network_config(**heads))
    agnostic_heads = {name: replace(head, class_agnostic=True) for name, head in heads.items()}
    agnostic = lively_network(network_config(**agnostic_heads))
    state = specific.state_dict()
    for name, value in state.items():
        if name.startswith(("roi_heads.box.heads.0.deltas.", "roi_heads.mask.heads.0.predictor.")):
            rows = 4 if "deltas" in name else 1
            state[name] = value[:rows].repeat(len(value) // rows, *[1] * (value.ndim - 1))
    specific.load_state_dict(state)
    reduced = {name: state[name][: len(value)] for name, value in agnostic.state_dict().items() if value.ndim}
    agnostic.load_state_dict(reduced, strict=False)
    images = batch_of(sample_of(64, 96, [(0, (10, 10, 40, 40))])).images
    settings = DetectConfig(score_threshold=0.02)
    a, b = specific.eval().detect(images, settings), agnostic.eval().detect(images, settings)
    assert a.valid.any()
    torch.testing.assert_close(a.boxes, b.boxes)
    torch.testing.assert_close(a.scores, b.scores)
    assert torch.equal(a.labels, b.labels)
    torch.testing.assert_close(a.mask_probs, b.mask_probs)


def test_sampled_rois_hold_the_ground_truth_and_say_what_they_stand_for() -> None:
    network = lively_network(network_config())
    batch = batch_of(sample_of(64, 96, [(1, (10, 10, 40, 40)), (0, (50, 20, 90, 60))]), sample_of(64, 96, []))
    count = network.roi_heads.box.config.samples
    proposals = Proposals(torch.rand(2, 100, 2).repeat(1, 1, 2) * 30, torch.ones(2, 100, dtype=torch.bool))
    proposals.boxes[..., 2:] += 5
    box = network.roi_heads.box
    torch.manual_seed(0)
    rois = sample_rois(proposals, batch.targets, box.config, OURS.matching, box.num_classes)
    assert rois.boxes.shape == (2, count, 4)
    background = network.roi_heads.box.num_classes
    assert (rois.labels[~rois.positive] == background).all()
    assert not rois.positive[1].any()  # no objects there
    for slot, (label, box) in enumerate([(1, (10, 10, 40, 40)), (0, (50, 20, 90, 60))]):
        same = (rois.boxes[0] == torch.tensor(box, dtype=torch.float32)).all(-1)
        assert same.any()
        assert rois.positive[0][same].all()
        assert (rois.labels[0][same] == label).all()
        assert (rois.slot[0][same] == slot).all()


def test_positive_slots_are_positives_drawn_up_to_the_limit() -> None:
    positive = torch.zeros(2, 40, dtype=torch.bool)
    positive[0, 5:25] = True
    index, used, _ = positive_slots(positive, 64)
    assert used.all()
    assert sorted(index.tolist()) == list(range(5, 25))
    torch.manual_seed(0)
    index, used, _ = positive_slots(positive, 4)
    assert len(set(index.tolist())) == 4  # at most 4 of each image, and the other image has none
    assert positive.flatten()[index].all()
    torch.manual_seed(1)
    other, _, _ = positive_slots(positive, 4)
    assert set(other.tolist()) != set(index.tolist())
    assert len(positive_slots(torch.zeros_like(positive), 4)[0]) == 0


def test_rpn_losses_over_the_number_asked_for() -> None:
    """Detectron2 divides by `samples` an image, also where fewer anchors could be drawn."""
    config = network_config()
    batch = batch_of(sample_of(64, 96, [(0, (10, 10, 40, 50))]), sample_of(64, 96, [(1, (30, 5, 90, 60))]))
    network = build_model(config)
    network.rpn.config = replace(config.model.rpn, samples=1 << 16)
    output = network.rpn(network.features(batch.images), batch.images.pixels.shape[-2:])
    drawn = mean_losses(network.rpn.losses(output, batch.targets, batch.images.sizes_hw))
    network.rpn.conventions = replace(OURS, losses=LossRules(rpn_divisor="full"))
    fixed = mean_losses(network.rpn.losses(output, batch.targets, batch.images.sizes_hw))
    ratios = [(fixed[name] / drawn[name] * 2 * (1 << 16)).item() for name in drawn]
    first, second = ratios
    assert first == pytest.approx(second, rel=1e-4)  # the number of anchors that were drawn
    assert first == pytest.approx(round(first), rel=1e-4)
    assert 0 < first < 2 * (1 << 16)


def test_widths_of_rpn_stem_and_keypoint_convolutions() -> None:
    config = network_config(
        backbone=ResNetConfig(depth=10, width=8, stem_width=12),
        rpn=RPNConfig(convs=2, channels=20),
        mask_head=None,
        keypoint_head=KeypointHeadConfig(3, convs=2, channels=(16, 24)),
    )
    network = build_model(config)
    shapes = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    wide = config.model.fpn_channels
    assert shapes["backbone.stem.conv.weight"][:2] == (12, 3)
    assert shapes["backbone.res2.0.conv1.conv.weight"][:2] == (8, 12)
    assert [shapes[f"rpn.head.convs.{i}.weight"][:2] for i in (0, 1)] == [(20, wide), (20, 20)]
    assert shapes["rpn.head.deltas.weight"][1] == 20
    assert [shapes[f"roi_heads.keypoint.head.convs.{i}.weight"][:2] for i in (0, 1)] == [(16, wide), (24, 16)]
    assert shapes["roi_heads.keypoint.head.predictor.weight"][:2] == (24, 3)
