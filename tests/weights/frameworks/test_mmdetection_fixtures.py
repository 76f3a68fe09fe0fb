"""An MMDetection checkpoint with its own outputs: every stage from the image to masks, losses and gradients.

The numbers in the assertions are those of the project's promise to owners of an old model.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from maskrcnn.files.checkpoint import read_checkpoint
from maskrcnn.models.branches.mask import mask_crops, mask_goal
from maskrcnn.models.mask_rcnn import MaskRCNN
from maskrcnn.models.rois import RoIs, Slots
from maskrcnn.ops.matching import match
from maskrcnn.weights.frameworks.mmdetection import MMDetection
from maskrcnn.weights.frameworks.mmdetection.names import TABLE
from maskrcnn.weights.open import open_weights
from peer_case import (
    Case,
    assert_detections,
    assert_features,
    assert_masks,
    assert_proposals,
    assert_saved_as_our_file_it_finds_the_same_bits,
    trained_on_everything,
)
from peer_fixtures import PeerFixture, losses_on, network_of, training_batch


@pytest.fixture(scope="module")
def case(shared: Path) -> Case:
    peer = PeerFixture(shared / "fixtures" / "mmdet" / "r50_caffe_fpn")
    return Case(
        peer,
        MMDetection().import_checkpoint(
            read_checkpoint(peer.checkpoint), MMDetection().read_settings(peer.folder / "config.json")
        ),
    )


def test_every_tensor_has_its_place(case: Case) -> None:
    assert MMDetection().recognise(read_checkpoint(case.peer.checkpoint).tensors)
    assert case.imported.unused == ()
    assert [category.name for category in case.imported.config.categories] == ["c0", "c1", "c2", "c3", "c4"]


def test_where_two_settings_disagree_it_says_which_counts(case: Case) -> None:
    """The fixture was made with its `test_pipeline`; its `test_dataloader` has another size."""
    (sentence,) = case.imported.assumed
    assert "test_pipeline" in sentence
    assert "test_dataloader" in sentence
    assert (case.imported.config.image.short_side, case.imported.config.image.long_side) == (256, 400)


def test_network_input_is_theirs_to_the_grey_level(case: Case) -> None:
    for i, pixels in enumerate(case.inputs):
        np.testing.assert_array_equal(case.images[i].sizes_hw[0], case.of(i, "net_hw"))
        assert torch.equal(pixels.flip(1), torch.from_numpy(case.of(i, "input")))  # they see BGR


def test_features(case: Case) -> None:
    assert_features(case)


def test_proposals(case: Case) -> None:
    assert_proposals(case)


def test_detections(case: Case) -> None:
    assert_detections(case)


def test_masks(case: Case) -> None:
    assert_masks(case)


def test_saved_as_our_file_it_finds_the_same_bits(case: Case, tmp_path: Path) -> None:
    assert_saved_as_our_file_it_finds_the_same_bits(case, tmp_path)


def test_export_is_the_file_again(case: Case) -> None:
    exported = MMDetection().export_state(case.imported.config, case.imported.state)
    original = read_checkpoint(case.peer.checkpoint).tensors
    assert exported.keys() == original.keys()
    assert all(torch.equal(exported[name], value) for name, value in original.items())


def test_the_config_inside_of_the_file_is_the_one_beside_it(case: Case) -> None:
    _, config, provenance = open_weights(case.peer.checkpoint)
    assert config == case.imported.config
    assert provenance["framework"] == "mmdetection"


def test_without_any_config_what_is_usual_is_assumed(case: Case) -> None:
    """The fixture keeps MMDetection's own settings in all but the size of the image and what the shapes tell. The style
    of its backbone shows in the statistics behind the first convolution."""
    guessed = MMDetection().import_checkpoint(replace(read_checkpoint(case.peer.checkpoint), extra={}), None)
    assert guessed.config.model == case.imported.config.model
    assert replace(guessed.config.image, short_side=256, long_side=400) == case.imported.config.image
    assert any("style of the backbone is caffe, because" in sentence for sentence in guessed.assumed)
    assert any("800" in sentence for sentence in guessed.assumed)
    assert all(torch.equal(guessed.state[name], value) for name, value in case.imported.state.items())


@pytest.mark.parametrize(("tag", "numbers"), [("t1", (0,)), ("t2", (0, 1))])
def test_anchors_of_the_loss(case: Case, tag: str, numbers: tuple[int, ...]) -> None:
    """Positive, negative and left out, as in the padding that the other image of a batch makes necessary."""
    batch = training_batch(case.peer, case.imported.config, numbers)
    with torch.no_grad():
        output = case.network.rpn(case.network.features(batch.images), batch.images.pixels.shape[-2:])
    config, targets = case.network.rpn.config, batch.targets
    rules = case.imported.config.conventions.matching
    assert rules.rpn_low_quality_iou == 0.3
    label, _ = match(
        torch.cat(output.anchors)[None],
        targets.boxes,
        targets.valid,
        targets.crowd,
        positive_iou=config.positive_iou,
        negative_iou=config.negative_iou,
        low_quality_iou=rules.rpn_low_quality_iou,
        low_quality_target=rules.low_quality_target,
        left_out=case.network.rpn.left_out(output.anchors, batch.images.sizes_hw),
    )
    theirs = case.peer.expected[f"{tag}_anchor_labels_mm"]  # 0 an object, 1 background
    np.testing.assert_array_equal(label, np.where(theirs < 0, -1, 1 - theirs))


def proposals_of(case: Case, tag: str, number: int) -> np.ndarray:
    """What the RPN proposed: all that was drawn but the objects, which lead the positives."""
    arrays = case.peer.expected
    truth, positive = (arrays[f"{tag}_{name}_{number}"] for name in ("gt_boxes_net", "samp_pos_boxes"))
    np.testing.assert_array_equal(positive[: len(truth)], truth)
    return np.concatenate([positive[len(truth) :], arrays[f"{tag}_samp_neg_boxes_{number}"]])


@dataclass
class Step:
    """One training step: our losses, and theirs by their names."""

    network: MaskRCNN
    losses: dict[str, Tensor]
    theirs: dict[str, float]


OUR_LOSSES = {
    "loss_rpn_class": "rpn_cls",
    "loss_rpn_box": "rpn_bbox",
    "loss_class": "cls",
    "loss_box": "bbox",
    "loss_mask": "mask",
}


def step_of(case: Case, tag: str, recorded: str, numbers: tuple[int, ...]) -> Step:
    """`recorded` names the arrays with the proposals, which `t1bit_` shares with `t1_`."""
    imported = replace(case.imported, config=trained_on_everything(case.imported.config))
    network = network_of(imported).train()
    batch = training_batch(case.peer, imported.config, numbers)
    losses = losses_on(network, batch, [proposals_of(case, recorded, slot) for slot in range(len(numbers))])
    theirs = {ours: float(case.peer.expected[f"{tag}_loss_loss_{name}"]) for ours, name in OUR_LOSSES.items()}
    return Step(network, losses, theirs)


@pytest.mark.slow
def test_losses_and_gradients(case: Case) -> None:
    """With bitmaps resized with the image, MMDetection's own way (`poly2mask`)."""
    step = step_of(case, "t1bit", "t1", (0,))
    for name, found in step.losses.items():
        assert found.item() == pytest.approx(step.theirs[name], rel=3e-4 if name == "loss_mask" else 1e-4), name
    sum(step.losses.values()).backward()  # type: ignore[union-attr]
    arrays = case.peer.expected
    norms = dict(zip(arrays["t1bit_grad_names"].tolist(), arrays["t1bit_grad_norms"].tolist(), strict=True))
    theirs = TABLE.their_names(step.network.state_dict())
    found = {
        theirs[name]: float(parameter.grad.norm())
        for name, parameter in step.network.named_parameters()
        if parameter.grad is not None
    }
    assert found.keys() == norms.keys()  # as much is frozen
    for name, norm in norms.items():
        # Rounding decides the sign before a ReLU here and there: the more of them lie above a layer, the more.
        assert found[name] == pytest.approx(norm, rel=3e-3 if ".layer" in name else 1e-3), name


@pytest.mark.slow
def test_losses_of_a_batch(case: Case) -> None:
    """Two images of different shape. Theirs drew the polygons anew inside every RoI, of which ours keeps bitmaps."""
    step = step_of(case, "t2", "t2", (0, 1))
    for name, found in step.losses.items():
        assert found.item() == pytest.approx(step.theirs[name], rel=2e-3 if name == "loss_mask" else 1e-4), name


def test_mask_targets(case: Case) -> None:
    """Theirs of bitmaps, pixel by pixel."""
    arrays, batch = case.peer.expected, training_batch(case.peer, case.imported.config, (0,))
    boxes = torch.from_numpy(arrays["t1_samp_pos_boxes_0"])[None]
    labels, slot = (
        torch.from_numpy(arrays[f"t1_samp_{name}_0"]).long()[None] for name in ("pos_gt_labels", "pos_assigned_gt")
    )
    positive = torch.ones_like(slot, dtype=torch.bool)
    rois = RoIs(boxes, labels, slot, positive, positive, ~positive)
    rules = case.imported.config.conventions.masks
    slots = Slots(torch.arange(boxes.shape[1]), positive[0], (1, boxes.shape[1]))
    goal = mask_goal(boxes[0], mask_crops(rois, slots, batch.targets), rules, 28)
    assert (goal.numpy() != arrays["t1bit_mask_targets_first48"]).mean() < 1e-3  # averages within rounding of a half
