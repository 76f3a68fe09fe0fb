"""The rules of MMDetection's cascade and of its anchors and norms, each alone.

Detectron2's cascade is in `test_variants.py`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from maskrcnn.config import BoxHeadConfig, ResNetConfig, RPNConfig
from maskrcnn.config.conventions import OURS, CascadeRules, MatchingRules
from maskrcnn.models.branches.box import BoxBranch, box_losses
from maskrcnn.models.branches.mask import MaskBranch
from maskrcnn.models.losses import mean_losses
from maskrcnn.models.mask_rcnn import MaskRCNN
from maskrcnn.models.pooler import RoIReader
from maskrcnn.models.resnet import ResNet
from maskrcnn.models.rois import flatten_boxes, sample_rois
from maskrcnn.models.rpn import RPN, Proposals, RPNOutput
from maskrcnn.ops.boxes import clip, decode, encode
from maskrcnn.ops.matching import match
from small_network import batch_of, lively_network, network_config, sample_of

BASE = network_config().model
STAGES: dict[str, Any] = {
    "cascade_ious": (0.6, 0.7),
    "cascade_weights": ((20.0, 20.0, 10.0, 10.0), (30.0, 30.0, 15.0, 15.0)),
}
WINDOWS = torch.tensor([[0, 0, 96, 64]])
BATCH = batch_of(sample_of(64, 96, [(0, (10, 10, 50, 50)), (1, (40, 5, 90, 60))]))
PROPOSALS = Proposals(
    torch.tensor([[[10.0, 10, 40, 40], [50, 20, 90, 60], [12, 12, 50, 48], [0, 0, 20, 20]]]),
    torch.ones(1, 4, dtype=torch.bool),
)


def cascade(**rules: Any) -> tuple[MaskRCNN, BoxBranch, RoIReader]:
    """A network, its cascade, and what reads the features of one image."""
    conventions = replace(OURS, cascade=CascadeRules(**rules))
    network = lively_network(network_config(conventions, box_head=replace(BASE.box_head, **STAGES)))
    return network, network.roi_heads.box, network.roi_heads.pooler.on(network.features(BATCH.images))


def run_head(branch: BoxBranch, read: RoIReader, number: int, boxes: Tensor) -> Any:
    return branch.heads[number](read(*flatten_boxes(boxes), branch.config.resolution))


@torch.no_grad()
def test_a_box_moves_as_its_likeliest_class_says_and_scores_are_of_mean_logits() -> None:
    _, branch, read = cascade(scores="logits")
    settings = replace(BASE.detect, score_threshold=0.0, nms_iou=1.0)
    found = branch.detect(read, PROPOSALS, WINDOWS, settings)
    boxes, total = PROPOSALS.boxes, torch.zeros(())
    weights = (branch.config.box_weights, *STAGES["cascade_weights"])
    for number in range(3):
        logits, deltas = run_head(branch, read, number, boxes)
        total = total + logits / 3
        moved = decode(deltas, boxes[0, :, None], weights[number])  # (P, K, 4)
        if number < 2:
            label = logits[:, :-1].argmax(1)
            boxes = clip(moved[torch.arange(4), label][None], WINDOWS)
    expected = total.softmax(-1)[:, :-1]
    kept = expected.flatten().sort(descending=True)[0]
    torch.testing.assert_close(found.scores[found.valid], kept[: int(found.valid.sum())])
    for box, score, label in zip(found.boxes[0], found.scores[0], found.labels[0], strict=True):
        row = int((expected[:, label] - score).abs().argmin())
        torch.testing.assert_close(box, clip(moved[row, label][None, None], WINDOWS)[0, 0])


def test_weights_of_the_stages_losses() -> None:
    _, branch, read = cascade(loss_weights=(1.0, 0.5, 0.25))
    rois = sample_rois(PROPOSALS, BATCH.targets, branch.config, OURS.matching, 2)
    found, received = branch.losses(read, rois, BATCH.targets, WINDOWS)
    expected = {"loss_class": 0.0, "loss_box": 0.0}
    for number, (weight, own) in enumerate(zip((1.0, 0.5, 0.25), received, strict=True)):
        logits, deltas = run_head(branch, read, number, own.boxes)
        losses = box_losses(logits, deltas, own, BATCH.targets, branch.stages[number], OURS)
        expected = {name: value + weight * losses[name].mean().item() for name, value in expected.items()}
    assert {name: value.item() for name, value in mean_losses(found).items()} == pytest.approx(expected, rel=1e-5)


def test_later_stages_draw_anew_with_the_ground_truth() -> None:
    """The moved RoIs without the ground truth that was among them, and the ground truth as it is."""
    _, branch, read = cascade(sampling="each_stage")
    rois = sample_rois(PROPOSALS, BATCH.targets, replace(branch.config, positive_fraction=1.0), OURS.matching, 2)
    assert rois.truth.sum() == 2
    _, received = branch.losses(read, rois, BATCH.targets, WINDOWS)
    _, deltas = run_head(branch, read, 0, rois.boxes)
    logits, _ = run_head(branch, read, 0, rois.boxes)
    labels = torch.where(rois.positive[0], rois.labels[0], logits[:, :-1].argmax(1))
    moved = decode(deltas[torch.arange(len(labels)), labels], rois.boxes[0], branch.config.box_weights)
    expected = torch.cat([clip(moved[None], WINDOWS)[0][~rois.truth[0]], BATCH.targets.boxes[0]])
    second = received[1]
    drawn = second.boxes[second.valid]
    assert {tuple(box) for box in drawn.round().tolist()} <= {tuple(box) for box in expected.round().tolist()}
    assert second.truth[second.valid].sum() == 2
    assert second.positive[second.truth & second.valid].all()


def test_gradients_of_the_stages_meet_as_their_mean_or_sum() -> None:
    norms = {}
    for rule in ("mean", "sum"):
        network, branch, _ = cascade(gradient=rule)
        features = [f.detach().requires_grad_() for f in network.features(BATCH.images)]
        torch.manual_seed(0)
        rois = sample_rois(PROPOSALS, BATCH.targets, branch.config, OURS.matching, 2)
        losses, _ = branch.losses(network.roi_heads.pooler.on(features), rois, BATCH.targets, WINDOWS)
        sum(mean_losses(losses).values()).backward()  # type: ignore[union-attr]
        norms[rule] = torch.stack([f.grad.norm() for f in features if f.grad is not None]).norm()
    torch.testing.assert_close(norms["sum"], 3 * norms["mean"])


def test_a_mask_head_a_stage_learns_from_its_rois_and_all_are_averaged() -> None:
    network, branch, read = cascade(mask_head_per_stage=True, loss_weights=(1.0, 0.5, 0.25))
    masks = network.roi_heads.mask
    assert isinstance(masks, MaskBranch)
    singles = [MaskBranch([head], (1.0,), 2, masks.config, masks.rules) for head in masks.heads]
    rois = sample_rois(PROPOSALS, BATCH.targets, branch.config, OURS.matching, 2)
    _, received = branch.losses(read, rois, BATCH.targets, WINDOWS)
    found = masks.losses(read, received, BATCH.targets)["loss_mask"].mean()
    alone = [
        single.losses(read, [own], BATCH.targets)["loss_mask"].mean()
        for single, own in zip(singles, received, strict=True)
    ]
    torch.testing.assert_close(found, alone[0] + 0.5 * alone[1] + 0.25 * alone[2])
    with torch.no_grad():
        boxes = branch.detect(read, PROPOSALS, WINDOWS, BASE.detect)
        probs = [single.detect(read, boxes).mask_probs for single in singles]
        assert probs[0] is not None
        torch.testing.assert_close(masks.detect(read, boxes).mask_probs, sum(probs) / 3)  # type: ignore[arg-type]


def left_out_of(rpn: RPN, rules: MatchingRules, sizes_hw: list[list[int]], padded_hw: tuple[int, int]) -> list[Tensor]:
    """Of each level, (B, h, w, A)."""
    rpn.conventions = replace(OURS, matching=rules)
    grids = [(-(-padded_hw[0] // stride), -(-padded_hw[1] // stride)) for stride in rpn.anchors.strides]
    anchors = rpn.anchors(grids, padded_hw, torch.device("cpu"))
    found = rpn.left_out(anchors, torch.tensor(sizes_hw))
    assert found is not None
    parts = found.split([len(level) for level in anchors], dim=1)
    return [part.view(len(sizes_hw), *grid, -1) for part, grid in zip(parts, grids, strict=True)]


def test_anchors_of_cells_in_the_padding_of_a_batch_are_left_out() -> None:
    """MMDetection's `valid_flags`: an image of 40 x 70, padded for itself to 64 x 96, in a batch of 128 x 160."""
    rpn = lively_network(network_config()).rpn
    levels = left_out_of(rpn, MatchingRules(ignore_padding_anchors=True), [[40, 70], [128, 160]], (128, 160))
    for part, stride in zip(levels, rpn.anchors.strides, strict=True):
        used = -(-64 // stride), -(-96 // stride)
        assert not part[1].any()
        assert not part[0, : used[0], : used[1]].any()
        assert part[0, used[0] :].all()
        assert part[0, :, used[1] :].all()


def test_anchors_that_leave_the_image_are_left_out() -> None:
    """MMDetection's `anchor_inside_flags`, and Detectron's, whose last pixel is one before the edge."""
    rpn = lively_network(network_config()).rpn
    grids = [(-(-64 // stride), -(-96 // stride)) for stride in rpn.anchors.strides]
    levels = rpn.anchors(grids, (64, 96), torch.device("cpu"))
    for before, after in ((0.0, 0.0), (8.0, 8.0), (0.0, 1.0)):
        found = left_out_of(rpn, MatchingRules(allowed_border=(before, after)), [[64, 96]], (64, 96))
        for part, anchors in zip(found, levels, strict=True):
            x1, y1, x2, y2 = anchors.unbind(-1)
            inside = (x1 >= -before) & (y1 >= -before) & (x2 < 96 + after) & (y2 < 64 + after)
            assert torch.equal(part.flatten(), ~inside)
        assert not found[0].all()
    rules = MatchingRules(allowed_border=(0.0, 0.0), ignore_padding_anchors=True)
    both = left_out_of(rpn, rules, [[40, 70], [64, 96]], (64, 128))
    assert both[0][0].sum() > both[0][1].sum()


@pytest.mark.parametrize(
    "rules",
    [
        OURS.matching,
        MatchingRules(rpn_low_quality_iou=0.3),
        MatchingRules(rpn_low_quality_iou=None),
        MatchingRules(low_quality_target="own"),
        MatchingRules(ignore_padding_anchors=True),
        MatchingRules(allowed_border=(0.0, 0.0)),
    ],
    ids=repr,
)
def test_losses_of_proposals_follow_the_rules_of_matching(rules: MatchingRules) -> None:
    """Every anchor is sampled, so that the losses are means over those that the rule leaves."""
    batch = batch_of(
        sample_of(40, 70, [(0, (8, 8, 24, 24)), (1, (8, 8, 24, 22)), (0, (10, 2, 50, 38)), (1, (50, 10, 53, 12))]),
        sample_of(128, 160, [(1, (30, 20, 60, 100))]),
    )
    rpn = lively_network(network_config()).rpn
    rpn.config = RPNConfig(samples=1 << 16, positive_fraction=0.5, negative_iou=0.4, positive_iou=0.5)
    grids = [(-(-128 // stride), -(-160 // stride)) for stride in rpn.anchors.strides]
    anchors = rpn.anchors(grids, (128, 160), torch.device("cpu"))
    generator = torch.Generator().manual_seed(0)
    logits = [torch.randn(2, len(level), generator=generator) for level in anchors]
    deltas = [torch.randn(2, len(level), 4, generator=generator) for level in anchors]
    both = []
    for matching in (OURS.matching, rules):
        rpn.conventions = replace(OURS, matching=matching)
        both.append(mean_losses(rpn.losses(RPNOutput(logits, deltas, anchors), batch.targets, batch.images.sizes_hw)))
    without, found = both
    assert torch.isclose(without["loss_rpn_box"], found["loss_rpn_box"], rtol=1e-4).item() == (rules == OURS.matching)
    targets, every = batch.targets, torch.cat(anchors)
    label, matched = match(
        every[None],
        targets.boxes,
        targets.valid,
        targets.crowd,
        positive_iou=0.5,
        negative_iou=0.4,
        low_quality_iou=rules.rpn_low_quality_iou,
        low_quality_target=rules.low_quality_target,
        left_out=rpn.left_out(anchors, batch.images.sizes_hw),
    )
    drawn, positive = label >= 0, label == 1
    terms = F.binary_cross_entropy_with_logits(torch.cat(logits, 1), positive.float(), reduction="none")
    goal = targets.boxes.gather(1, matched[..., None].expand(-1, -1, 4))[positive]
    offsets = encode(goal, every.expand(2, -1, -1)[positive], rpn.config.box_weights)
    boxes = F.smooth_l1_loss(torch.cat(deltas, 1)[positive], offsets, beta=1 / 9, reduction="sum")
    torch.testing.assert_close(found["loss_rpn_class"], terms[drawn].mean())
    torch.testing.assert_close(found["loss_rpn_box"], boxes / drawn.sum())


def test_a_fixed_norm_keeps_its_statistics_and_trains_the_rest() -> None:
    """MMDetection's `norm_eval` with `requires_grad`; frozen stages train nothing."""
    network = ResNet(ResNetConfig(depth=10, width=4, norm="fixed_batch_norm", frozen_stages=1))
    before = {name: value.clone() for name, value in network.named_buffers()}
    assert {name.rpartition(".")[2] for name in before} == {"running_mean", "running_var"}
    network.train()
    network(torch.randn(2, 3, 32, 32))[-1].sum().backward()
    assert all(torch.equal(before[name], value) for name, value in network.named_buffers())
    trained = {name for name, value in network.named_parameters() if value.grad is not None}
    assert "res2.0.conv1.norm.weight" in trained
    assert "res5.0.conv2.norm.bias" in trained
    assert not any(name.startswith("stem") for name in trained)
    plain = ResNet(ResNetConfig(depth=10, width=4, norm="frozen_batch_norm"))
    plain.load_state_dict(network.state_dict())
    image = torch.randn(1, 3, 32, 32)
    assert all(torch.equal(a, b) for a, b in zip(network(image), plain(image), strict=True))


def test_the_best_roi_of_an_object_is_positive_from_the_low_quality_iou_on() -> None:
    boxes = torch.tensor([[[10.0, 10, 50, 30], [60, 0, 70, 10]]])  # half of the first object, and nothing
    proposals = Proposals(boxes, torch.ones(1, 2, dtype=torch.bool))
    for least, expected in ((None, 0), (0.4, 1), (0.6, 0)):
        config = BoxHeadConfig(positive_iou=0.7, positive_fraction=1.0)
        rules = MatchingRules(box_low_quality_iou=least, ground_truth_rois=False)
        assert sample_rois(proposals, BATCH.targets, config, rules, 2).positive.sum() == expected
