"""Rules in which frameworks differ, each alone: what it changes, and nothing else."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from maskrcnn.config import BoxHeadConfig, DetectConfig, ResNetConfig, RoIConfig, RPNConfig
from maskrcnn.config.conventions import (
    MATTERPORT,
    OURS,
    BoxRules,
    Conventions,
    DetectionRules,
    FeatureRules,
    LossRules,
    MatchingRules,
    ProposalRules,
)
from maskrcnn.models.branches.box import box_losses, select_detections
from maskrcnn.models.losses import sum_box_loss
from maskrcnn.models.pooler import RoIPooler
from maskrcnn.models.resnet import ResNet
from maskrcnn.models.rois import RoIs, sample_rois
from maskrcnn.models.rpn import Proposals, RPNOutput
from maskrcnn.ops.boxes import trim, whole_images
from maskrcnn.predict.images import postprocess
from maskrcnn.structures.frame import frame_of_size
from small_network import batch_of, lively_network, network_config, sample_of

LAST_PIXEL = replace(OURS, boxes=BoxRules(end="last_pixel"), features=FeatureRules(crop_and_resize=True))
BATCH = batch_of(sample_of(64, 96, [(0, (10, 10, 50, 50)), (1, (40, 5, 90, 60))]))


def test_stem_of_its_own_width() -> None:
    network = ResNet(ResNetConfig(depth=50, width=8, stem_width=16, frozen_stages=0))
    assert network.stem.conv.weight.shape[0] == 16
    assert network(torch.zeros(1, 3, 64, 64))[0].shape == (1, 32, 16, 16)
    with pytest.raises(match="stem_width"):
        ResNetConfig(stem_width=0)


def test_pool_padding_after_reads_on_from_the_first_pixel() -> None:
    """TensorFlow's SAME on an even size: windows of cells 0..2, 2..4, ..., and the last one of two."""
    torch.manual_seed(0)
    network = ResNet(ResNetConfig(depth=10, width=4), pool_padding="after").eval()
    taken: list[Tensor] = []
    network.res2.register_forward_pre_hook(lambda module, args: taken.append(args[0]))
    network.stem.register_forward_hook(lambda module, args, result: taken.append(result.clone()))
    with torch.no_grad():
        network(torch.randn(1, 3, 16, 16))
    before, pooled = taken
    for i in range(4):
        for j in range(4):
            window = before[..., 2 * i : 2 * i + 3, 2 * j : 2 * j + 3].clamp(min=0)
            torch.testing.assert_close(pooled[..., i, j], window.amax((2, 3)))


def test_levels_together_suppress_each_other() -> None:
    """Two equal boxes on two levels: both are proposed level by level, one of all levels together."""
    network = lively_network(network_config()).eval()
    box = torch.tensor([[10.0, 10, 50, 50]])
    output = RPNOutput(
        [torch.tensor([[1.0]]), torch.tensor([[2.0]])], [torch.zeros(1, 1, 4), torch.zeros(1, 1, 4)], [box, box]
    )
    counts = {}
    for merged in (False, True):
        network.rpn.conventions = replace(OURS, proposals=ProposalRules(merge_levels=merged))
        counts[merged] = int(network.rpn.propose(output, torch.tensor([[64, 96]])).valid.sum())
    assert counts == {False: 2, True: 1}


def test_width_of_the_rpn() -> None:
    network = lively_network(network_config(rpn=RPNConfig(convs=2, channels=24)))
    shapes = [conv.weight.shape[:2] for conv in network.rpn.head.convs]
    assert shapes[1] == (24, 24)
    assert shapes[0][0] == 24
    assert "loss_rpn_box" in network(BATCH.images, BATCH.targets)
    with pytest.raises(match=r"rpn\.channels"):
        RPNConfig(channels=0)


def test_only_the_best_class_of_a_roi() -> None:
    probs = torch.tensor([[0.3, 0.4, 0.3], [0.35, 0.2, 0.45], [0.6, 0.3, 0.1]])  # the last column is background
    proposals = Proposals(
        torch.tensor([[[0.0, 0, 10, 10], [20, 20, 30, 30], [40, 40, 60, 60]]]), torch.ones(1, 3, dtype=torch.bool)
    )
    one = replace(OURS, detections=DetectionRules(one_class_per_roi=True))
    every, best = (
        select_detections(
            probs,
            torch.zeros(3, 2, 4),
            proposals,
            BoxHeadConfig(),
            rules,
            torch.tensor([[0, 0, 96, 64]]),
            DetectConfig(score_threshold=0.1),
        )
        for rules in (OURS, one)
    )
    assert int(every.valid.sum()) == 6
    assert best.scores[best.valid].tolist() == pytest.approx([0.6, 0.4])
    assert best.labels[best.valid].tolist() == [0, 1]


def test_detections_are_clipped_to_their_window() -> None:
    probs = torch.tensor([[0.9, 0.1]])
    proposals = Proposals(torch.tensor([[[0.0, 0, 96, 64]]]), torch.ones(1, 1, dtype=torch.bool))
    window = torch.tensor([[5, 10, 80, 50]])
    found = select_detections(probs, torch.zeros(1, 1, 4), proposals, BoxHeadConfig(), OURS, window, DetectConfig())
    assert found.boxes[0, 0].tolist() == [5, 10, 80, 50]


@pytest.mark.parametrize("rules", [OURS, MATTERPORT])
def test_a_box_of_one_pixel_is_kept_where_x2_is_the_last_pixel(rules: Conventions) -> None:
    """A box that is moved beyond the right edge becomes its last column, or has no area where x2 is an edge."""
    box, beyond = torch.tensor([[[80.0, 10, 90, 50]]]), torch.tensor([[[30.0, 0, 0, 0]]])
    window = torch.tensor([[0, 0, 96, 64]]) - torch.tensor([0, 0, 1, 1]) * int(rules.boxes.trim)
    probs, proposals = torch.tensor([[0.9, 0.1]]), Proposals(box, torch.ones(1, 1, dtype=torch.bool))
    found = select_detections(probs, beyond, proposals, BoxHeadConfig(), rules, window, DetectConfig())
    assert found.valid.tolist() == [[rules is MATTERPORT]]
    network = lively_network(network_config(rules)).eval()
    output = RPNOutput([torch.zeros(1, 1)], [beyond / 10], [box[0]])
    assert network.rpn.propose(output, torch.tensor([[64, 96]])).valid.tolist() == [[rules is MATTERPORT]]
    if rules is MATTERPORT:
        image = frame_of_size((64, 96), (64, 96))
        (result,) = postprocess(replace(found, boxes=found.boxes.round()), [image], network_config(rules))
        assert result.boxes.tolist() == [[95, 10, 96, 51]]


def test_ground_truth_need_not_be_learnt_from() -> None:
    proposals = Proposals(torch.tensor([[[10.0, 10, 50, 48], [0, 0, 5, 5]]]), torch.ones(1, 2, dtype=torch.bool))
    config = BoxHeadConfig(samples=8, positive_fraction=1.0)
    with_truth = sample_rois(proposals, BATCH.targets, config, OURS.matching, 2)
    without = sample_rois(proposals, BATCH.targets, config, MatchingRules(ground_truth_rois=False), 2)
    assert int(with_truth.valid.sum()) == 4
    assert int(without.valid.sum()) == 2
    assert int(without.positive.sum()) == 1


def test_box_loss_over_the_offsets_of_positives() -> None:
    losses, positive = torch.tensor([4.0, 8.0, 100.0]), torch.tensor([True, True, False])
    valid = torch.ones(3, dtype=torch.bool)
    assert sum_box_loss(losses, positive, valid, "sampled").mean().item() == 4.0
    assert sum_box_loss(losses, positive, valid, "offsets").mean().item() == 1.5
    none = torch.zeros(3, dtype=torch.bool)
    assert sum_box_loss(losses, none, valid, "offsets").mean().item() == 0.0
    boxes = torch.tensor([[[10.0, 10, 50, 48], [0, 0, 5, 5]]])
    positive, valid = torch.tensor([[True, False]]), torch.ones(1, 2, dtype=torch.bool)
    rois = RoIs(boxes, torch.tensor([[0, 2]]), torch.tensor([[0, 0]]), positive, valid, ~valid)
    logits, deltas = torch.zeros(2, 3), torch.randn(2, 2, 4)
    over_all, over_positives = (
        box_losses(logits, deltas, rois, BATCH.targets, BoxHeadConfig(), replace(OURS, losses=rules))["loss_box"].mean()
        for rules in (LossRules(), LossRules(box_divisor="offsets"))
    )
    torch.testing.assert_close(over_all * 2 / 4, over_positives)


def test_last_pixel_moves_every_far_edge() -> None:
    """Proposals, targets and windows end a pixel earlier; a box of the whole image is 0 0 W-1 H-1."""
    network = lively_network(network_config(LAST_PIXEL)).eval()
    huge = torch.tensor([[-100.0, -100, 300, 300]])
    output = RPNOutput([torch.tensor([[1.0]])], [torch.zeros(1, 1, 4)], [huge])
    proposals = network.rpn.propose(output, torch.tensor([[64, 96]]))
    assert proposals.boxes[0, 0].tolist() == [0, 0, 95, 63]
    found = network.detect(BATCH.images, DetectConfig(score_threshold=0.01))
    windows = trim(whole_images(BATCH.images.sizes_hw), 1)
    assert found.valid.any()
    assert (found.boxes[found.valid] <= windows[0, 2:].repeat(2)).all()
    seen = []
    network.train()
    network.roi_heads.box.losses = lambda *of: seen.append((of[2].boxes, of[3])) or ({}, [])  # type: ignore[method-assign,func-returns-value]
    network.roi_heads.mask = None
    network(BATCH.images, BATCH.targets)
    boxes, windows = seen[0]
    assert boxes[0].tolist() == [[10, 10, 49, 49], [40, 5, 89, 59]]
    assert windows.tolist() == [[0, 0, 95, 63]]


def test_level_of_a_box_that_ends_at_the_last_pixel() -> None:
    """Relative to the input: a box of all of it is as large as the input, although its corners are nearer."""
    config = RoIConfig(canonical_level=3, canonical_size=64.0)
    features = [torch.zeros(1, 1, 16, 16), torch.ones(1, 1, 8, 8)]
    whole, zero = torch.tensor([[0.0, 0, 63, 63]]), torch.zeros(1, dtype=torch.int64)
    assert RoIPooler([4, 8], config, torch.nn.Identity(), LAST_PIXEL).on(features)(whole, zero, 2).sum() == 4
    edges = replace(LAST_PIXEL, boxes=OURS.boxes)
    assert RoIPooler([4, 8], config, torch.nn.Identity(), edges).on(features)(whole, zero, 2).sum() == 0


def test_class_weights_are_those_of_a_weighted_mean() -> None:
    torch.manual_seed(0)
    targets = batch_of(sample_of(64, 96, [(0, (10, 10, 40, 40))])).targets
    boxes = torch.tensor([[[10.0, 10, 50, 48], [0, 0, 5, 5], [5, 5, 30, 30], [0, 0, 9, 9]]])
    labels, valid = torch.tensor([[0, 2, 1, 2]]), torch.tensor([[True, True, True, False]])
    rois = RoIs(boxes, labels, torch.zeros_like(labels), labels < 2, valid, ~valid)
    logits, deltas, weights = torch.randn(4, 3), torch.randn(4, 2, 4), torch.tensor([4.0, 0.5, 1.0])
    found = box_losses(logits, deltas, rois, targets, BoxHeadConfig(), OURS, weights)["loss_class"].mean()
    expected = torch.nn.functional.cross_entropy(logits[:3], labels[0, :3], weights)
    torch.testing.assert_close(found, expected)
