"""Detectron2 checkpoints with its own outputs: every stage from the image to masks, keypoints, losses and gradients.

The numbers in the assertions are those of the project's promise to owners of an old model.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from maskrcnn.config import Config
from maskrcnn.files.checkpoint import read_checkpoint
from maskrcnn.models.mask_rcnn import MaskRCNN
from maskrcnn.weights.frameworks.detectron2 import Detectron2
from maskrcnn.weights.frameworks.detectron2.names import TABLE
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

VARIANTS = ("r50_fpn", "r50_c4", "keypoint_r50_fpn", "cascade_r50_fpn")


def import_case(shared: Path, variant: str) -> Case:
    peer = PeerFixture(shared / "fixtures" / "detectron2" / variant)
    return Case(
        peer,
        Detectron2().import_checkpoint(
            read_checkpoint(peer.checkpoint), Detectron2().read_settings(peer.folder / "config.yaml")
        ),
    )


@pytest.fixture(scope="module", params=VARIANTS)
def case(shared: Path, request: pytest.FixtureRequest) -> Case:
    return import_case(shared, request.param)


def test_every_tensor_has_its_place(case: Case) -> None:
    assert Detectron2().recognise(read_checkpoint(case.peer.checkpoint).tensors)
    assert case.imported.unused == ()
    assert case.imported.assumed == ()


def test_network_input_is_theirs_to_the_grey_level(case: Case) -> None:
    for i, pixels in enumerate(case.inputs):
        np.testing.assert_array_equal(case.images[i].sizes_hw[0], case.of(i, "net_hw"))
        assert torch.equal(pixels.flip(1), torch.from_numpy(case.of(i, "input")))  # they see BGR


def test_features(case: Case) -> None:
    assert_features(case)


def test_proposals(case: Case) -> None:
    assert_proposals(case)


@pytest.mark.slow
def test_detections(case: Case) -> None:
    assert_detections(case)


@pytest.mark.slow
def test_masks(case: Case) -> None:
    assert_masks(case)


def test_keypoints(case: Case) -> None:
    if case.imported.config.model.keypoint_head is None:
        assert all(found.keypoints is None for found in case.instances)
        return
    for i, found in enumerate(case.instances):
        assert found.keypoints is not None
        for ours, theirs in case.pairs(i):
            expected = case.of(i, "det_keypoints")[theirs]
            np.testing.assert_allclose(found.keypoints[ours][:, :2], expected[:, :2], atol=0.05)
            np.testing.assert_allclose(found.keypoints[ours][:, 2], expected[:, 2], atol=1e-3)


@pytest.mark.slow
def test_saved_as_our_file_it_finds_the_same_bits(case: Case, tmp_path: Path) -> None:
    assert_saved_as_our_file_it_finds_the_same_bits(case, tmp_path)


def test_export_is_the_file_again(case: Case) -> None:
    exported = Detectron2().export_state(case.imported.config, case.imported.state)
    settings = ("pixel_", "proposal_generator.anchor_generator.")  # which older versions stored beside the weights
    stored = read_checkpoint(case.peer.checkpoint).tensors
    original = {name: value for name, value in stored.items() if not name.startswith(settings)}
    assert exported.keys() == original.keys()
    assert all(torch.equal(exported[name], value) for name, value in original.items())


def test_without_a_config_what_is_usual_is_assumed(case: Case) -> None:
    """The fixtures keep Detectron2's own settings in all but the size of the image and what the shapes tell."""
    guessed = Detectron2().import_checkpoint(read_checkpoint(case.peer.checkpoint), None)
    assert guessed.config.model == case.imported.config.model
    assert replace(guessed.config.image, short_side=256, long_side=400) == case.imported.config.image
    assert any("800" in sentence for sentence in guessed.assumed)
    assert any("first 1x1" in sentence for sentence in guessed.assumed)
    assert all(torch.equal(guessed.state[name], value) for name, value in case.imported.state.items())


@dataclass
class Step:
    """One training step: our losses and gradients, and theirs by their names."""

    network: MaskRCNN
    config: Config
    losses: dict[str, Tensor]
    theirs: dict[str, float]
    norms: dict[str, float]


def step_of(case: Case, tag: str, recorded: str, numbers: tuple[int, ...]) -> Step:
    """`recorded` names the arrays with the proposals, which `t1bit_` shares with `t1_`."""
    arrays = case.peer.expected
    imported = replace(case.imported, config=trained_on_everything(case.imported.config))
    network = network_of(imported).train()
    batch = training_batch(case.peer, imported.config, numbers)
    proposals = [arrays[f"{recorded}_rpn_prop_boxes_{slot}"] for slot in range(len(numbers))]
    losses = losses_on(network, batch, proposals)
    prefix = f"{tag}_loss_"
    theirs = {name.removeprefix(prefix): float(arrays[name]) for name in arrays if name.startswith(prefix)}
    norms = dict(zip(arrays[f"{tag}_grad_names"].tolist(), arrays[f"{tag}_grad_norms"].tolist(), strict=True))
    return Step(network, imported.config, losses, theirs, norms)


OUR_LOSSES = {
    "loss_rpn_class": "rpn_cls",
    "loss_rpn_box": "rpn_loc",
    "loss_class": "cls",
    "loss_box": "box_reg",
    "loss_mask": "mask",
    "loss_keypoint": "keypoint",
}


def assert_same_losses(step: Step, mask: float) -> None:
    """`mask` is the relative tolerance of the mask loss."""
    for name, found in step.losses.items():
        theirs = OUR_LOSSES[name]
        stages = [value for key, value in step.theirs.items() if key == theirs or key.startswith(f"{theirs}_stage")]
        tolerance = mask if name == "loss_mask" else 1e-4
        assert found.item() == pytest.approx(sum(stages), rel=tolerance), name


def assert_same_gradients(step: Step) -> None:
    sum(step.losses.values()).backward()  # type: ignore[union-attr]
    theirs = TABLE.their_names(step.network.state_dict())
    found = {
        theirs[name]: float(parameter.grad.norm())
        for name, parameter in step.network.named_parameters()
        if parameter.grad is not None
    }
    assert found.keys() == step.norms.keys()  # as much is frozen
    largest = max(step.norms.values())
    for name, norm in step.norms.items():
        # Rounding decides the sign before a ReLU here and there: the more of them lie above a layer, the more.
        tolerance = 3e-3 if ".res" in name else 1e-3
        # The bias of a softmax over all cells has no gradient but rounding.
        assert found[name] == pytest.approx(norm, rel=tolerance, abs=1e-6 * largest), name


@pytest.mark.slow
def test_losses_and_gradients(case: Case) -> None:
    """With bitmaps resized with the image, as with INPUT.MASK_FORMAT bitmask."""
    tag = "t1" if case.imported.config.model.mask_head is None else "t1bit"
    step = step_of(case, tag, "t1", (0,))
    assert_same_losses(step, mask=3e-4)
    assert_same_gradients(step)


@pytest.mark.slow
def test_losses_of_a_batch(case: Case) -> None:
    """Two images of different shape. Theirs drew the polygons anew inside every RoI, of which ours keeps bitmaps."""
    assert_same_losses(step_of(case, "t2", "t2", (0, 1)), mask=2e-3)
