"""Detectron2 checkpoints with its own outputs: every stage from the image to masks, keypoints, losses and gradients.

The numbers in the assertions are those of the project's promise to owners of an old model.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from maskrcnn.config import Config
from maskrcnn.models.mask_rcnn import MaskRCNN
from maskrcnn.predict import Predictor, load, preprocess
from maskrcnn.structures.detections import Detections, Instances
from maskrcnn.structures.images import ImageBatch
from maskrcnn.weights.detectron2 import export_state, import_checkpoint, read_config, recognise, their_name
from maskrcnn.weights.imported import Imported
from maskrcnn.weights.read import read_checkpoint
from peer_fixtures import PeerFixture, losses_on, network_of, pairs_of, relative_error, training_batch

VARIANTS = ("r50_fpn", "r50_c4", "keypoint_r50_fpn", "cascade_r50_fpn")
EVERY = 1 << 16  # more samples than there are candidates: nothing is drawn at random


@dataclass
class Case:
    """One checkpoint, imported with its config."""

    peer: PeerFixture
    imported: Imported

    @cached_property
    def network(self) -> MaskRCNN:
        return network_of(self.imported)

    @cached_property
    def images(self) -> list[ImageBatch]:
        return [preprocess([self.peer.image(i)], self.imported.config.image) for i in (0, 1)]

    @cached_property
    def inputs(self) -> list[Tensor]:
        return [self.network.normalise(images) for images in self.images]

    @cached_property
    @torch.no_grad()
    def stages(self) -> list[list[Tensor]]:
        """[res2, res3, ...] of each image."""
        return [self.network.backbone(pixels) for pixels in self.inputs]

    @cached_property
    @torch.no_grad()
    def features(self) -> list[list[Tensor]]:
        return [self.network.neck(stages) for stages in self.stages]

    @cached_property
    @torch.no_grad()
    def detections(self) -> list[Detections]:
        return [self.network.detect(images, self.imported.config.model.detect) for images in self.images]

    @cached_property
    def instances(self) -> list[Instances]:
        predictor = Predictor(self.network, self.imported.config)
        return [predictor.predict_arrays([self.peer.image(i)])[0] for i in (0, 1)]

    def pairs(self, number: int) -> list[tuple[int, int]]:
        """Our and their detections of one image, by class and box."""
        arrays, found = self.peer.expected, self.instances[number]
        boxes, classes = arrays[f"i{number}_det_boxes"], arrays[f"i{number}_det_classes"]
        return list(pairs_of(found.boxes, found.labels, boxes, classes))

    def of(self, number: int, name: str) -> np.ndarray:
        return self.peer.expected[f"i{number}_{name}"]


def import_case(shared: Path, variant: str) -> Case:
    peer = PeerFixture(shared / "fixtures" / "detectron2" / variant)
    return Case(peer, import_checkpoint(read_checkpoint(peer.checkpoint), read_config(peer.folder / "config.yaml")))


@pytest.fixture(scope="module", params=VARIANTS)
def case(shared: Path, request: pytest.FixtureRequest) -> Case:
    return import_case(shared, request.param)


def test_every_tensor_has_its_place(case: Case) -> None:
    assert recognise(read_checkpoint(case.peer.checkpoint).tensors)
    assert case.imported.unused == ()
    assert case.imported.assumed == ()


def test_network_input_is_theirs_to_the_grey_level(case: Case) -> None:
    for i, pixels in enumerate(case.inputs):
        np.testing.assert_array_equal(case.images[i].sizes_hw[0], case.of(i, "net_hw"))
        assert torch.equal(pixels.flip(1), torch.from_numpy(case.of(i, "input")))  # they see BGR


def test_features(case: Case) -> None:
    pyramid = case.imported.config.model.neck == "fpn"
    for i in (0, 1):
        found = dict(zip(("res2", "res3", "res4", "res5"), case.stages[i], strict=False))
        if pyramid:
            found |= {f"p{level}": feature for level, feature in enumerate(case.features[i], start=2)}
        compared = [name for name in found if f"i{i}_feat_{name}" in case.peer.expected]
        assert len(compared) == (9 if pyramid else 1)
        for name in compared:
            step = int(case.of(i, f"featstride_{name}"))
            assert relative_error(found[name][..., ::step, ::step], case.of(i, f"feat_{name}")) < 1e-3


@torch.no_grad()
def test_proposals(case: Case) -> None:
    """Objectness, offsets and anchors of every cell, in their order of the anchors: size, then ratio."""
    anchors = case.imported.config.model.anchors
    shape = len(anchors.ratios), len(anchors.sizes[0])
    for i in (0, 1):
        output = case.network.rpn(case.features[i], case.images[i].pixels.shape[-2:])
        for level, feature in enumerate(case.features[i]):
            h, w = feature.shape[-2:]
            logits = output.logits[level].view(h, w, *shape).permute(3, 2, 0, 1).reshape(-1, h, w)
            deltas = output.deltas[level].view(h, w, *shape, 4).permute(3, 2, 4, 0, 1).reshape(-1, h, w)
            boxes = output.anchors[level].view(h * w, *shape, 4).transpose(1, 2).reshape(-1, 4)
            step = int(case.of(i, f"rpn_deltas_stride_{level}"))
            assert relative_error(logits, case.of(i, f"rpn_logits_{level}")) < 1e-3
            assert relative_error(deltas[:, ::step, ::step], case.of(i, f"rpn_deltas_{level}")) < 1e-3
            np.testing.assert_allclose(boxes, case.of(i, f"anchors_{level}"), atol=1e-4)


def test_detections(case: Case) -> None:
    """None missing, none added, in pixels of the original image."""
    for i, found in enumerate(case.instances):
        expected = case.of(i, "det_boxes")
        assert len(found) == len(expected) >= 10
        for ours, theirs in case.pairs(i):
            assert np.abs(found.boxes[ours] - expected[theirs]).max() < 0.02
            assert abs(found.scores[ours] - case.of(i, "det_scores")[theirs]) < 1e-3


def clear_pixels(probs: np.ndarray, boxes: np.ndarray, image_hw: tuple[int, int]) -> np.ndarray:
    """(N, H, W) bool: whether the mask's probability at a pixel's centre is further than 0.01 from a half."""
    height, width = image_hw
    maps, edges = torch.from_numpy(probs), torch.from_numpy(boxes)
    x = (torch.arange(width) + 0.5 - edges[:, :1]) / (edges[:, 2:3] - edges[:, :1]) * 2 - 1
    y = (torch.arange(height) + 0.5 - edges[:, 1:2]) / (edges[:, 3:] - edges[:, 1:2]) * 2 - 1
    grid = torch.stack([x[:, None].expand(-1, height, -1), y[:, :, None].expand(-1, -1, width)], dim=-1)
    there = torch.nn.functional.grid_sample(maps[:, None], grid, align_corners=False)[:, 0]
    return ((there - 0.5).abs() > 0.01).numpy()


def test_masks(case: Case) -> None:
    """Probabilities on the mask's grid, and the pixels of the original image."""
    if case.imported.config.model.mask_head is None:
        assert all(found.masks is None for found in case.instances)
        return
    for i, found in enumerate(case.instances):
        probs = case.detections[i].mask_probs
        assert probs is not None
        assert found.masks is not None
        dense, expected = found.masks.dense(), case.peer.masks(i)
        clear = clear_pixels(case.of(i, "det_mask_probs"), case.of(i, "det_boxes"), found.image_hw)
        for ours, theirs in case.pairs(i):
            np.testing.assert_allclose(probs[0, ours], case.of(i, "det_mask_probs")[theirs], atol=2e-3)
            differ = dense[ours] ^ expected[theirs]
            assert not (differ & clear[theirs]).any()
            # IoU 0.998; of a small mask two pixels on the threshold
            assert differ.sum() <= max(2, 0.002 * (dense[ours] | expected[theirs]).sum())


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


def test_saved_as_our_file_it_finds_the_same_bits(case: Case, tmp_path: Path) -> None:
    Predictor(case.network, case.imported.config).save(tmp_path / "model.safetensors")
    again = load(tmp_path / "model.safetensors", device="cpu")
    assert again.config == case.imported.config
    found, first = again.predict_arrays([case.peer.image(0)])[0], case.instances[0]
    assert np.array_equal(found.boxes, first.boxes)
    assert np.array_equal(found.scores, first.scores)
    if found.masks is not None and first.masks is not None:
        assert list(found.masks) == list(first.masks)


def test_export_is_the_file_again(case: Case) -> None:
    exported = export_state(case.imported.config, case.imported.state)
    settings = ("pixel_", "proposal_generator.anchor_generator.")  # which older versions stored beside the weights
    stored = read_checkpoint(case.peer.checkpoint).tensors
    original = {name: value for name, value in stored.items() if not name.startswith(settings)}
    assert exported.keys() == original.keys()
    assert all(torch.equal(exported[name], value) for name, value in original.items())


def test_without_a_config_what_is_usual_is_assumed(case: Case) -> None:
    """The fixtures keep Detectron2's own settings in all but the size of the image and what the shapes tell."""
    guessed = import_checkpoint(read_checkpoint(case.peer.checkpoint), None)
    assert guessed.config.model == case.imported.config.model
    assert replace(guessed.config.image, short_side=256, long_side=400) == case.imported.config.image
    assert any("800" in sentence for sentence in guessed.assumed)
    assert any("first 1x1" in sentence for sentence in guessed.assumed)
    assert all(torch.equal(guessed.state[name], value) for name, value in case.imported.state.items())


def trained_on_everything(config: Config) -> Config:
    model = config.model
    return replace(
        config,
        model=replace(
            model,
            rpn=replace(model.rpn, samples=EVERY),
            box_head=replace(model.box_head, samples=EVERY),
            mask_head=model.mask_head and replace(model.mask_head, samples=EVERY),
            keypoint_head=model.keypoint_head and replace(model.keypoint_head, samples=EVERY),
        ),
    )


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
    found = {
        their_name(name, step.config): float(parameter.grad.norm())
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
