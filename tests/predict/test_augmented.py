"""Test-time augmentation against a slow oracle, and what a view must not change."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torchvision
from torch import Tensor

from maskrcnn.config import Category, Config
from maskrcnn.config.conventions import MATTERPORT, OURS, TORCHVISION, Conventions
from maskrcnn.config.heads import KeypointHeadConfig
from maskrcnn.errors import ConfigError
from maskrcnn.predict import Augmented, ImageView, Predictor, TorchBackend
from maskrcnn.predict.augmented import usual_views
from maskrcnn.predict.exported import ExportedBackend
from maskrcnn.predict.images import collate_prepared, postprocess
from maskrcnn.structures.detections import Detections
from maskrcnn.structures.frame import transform_boxes
from maskrcnn.structures.instances import Instances
from small_network import lively_network, network_config

VIEWS = (ImageView(), ImageView(flip_horizontal=True), ImageView(1.5, flip_vertical=True), ImageView(0.75, True, True))


def lively_predictor(conventions: Conventions = OURS, **model: object) -> Predictor:
    config = network_config(conventions, num_classes=2, **model)
    config = replace(config, categories=(Category(1, "a"), Category(2, "b")))
    return Predictor(TorchBackend(lively_network(config).eval()), config)


def picture(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(width).integers(0, 256, (height, width, 3), dtype=np.uint8)


def in_place_order(found: Instances) -> Instances:
    """The objects from left to right: rounding changes the order of nearly equal scores."""
    return found.select(np.lexsort(found.boxes.round(1).T))


def assert_same(found: Instances, expected: Instances) -> None:
    assert len(found) == len(expected) > 3
    np.testing.assert_array_equal(found.labels, expected.labels)
    np.testing.assert_allclose(found.boxes, expected.boxes, atol=1e-3)
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-5)
    assert found.masks is not None
    assert expected.masks is not None
    np.testing.assert_allclose(found.masks.areas(), expected.masks.areas(), atol=2)


@pytest.mark.parametrize(
    ("conventions", "views"),
    [(OURS, (ImageView(), ImageView())), (TORCHVISION, (ImageView(), ImageView())), (MATTERPORT, (ImageView(),))],
    ids=["ours", "torchvision", "matterport"],
)
def test_views_without_a_change_give_the_plain_result(conventions: Conventions, views: tuple[ImageView, ...]) -> None:
    predictor = lively_predictor(conventions)
    images = [picture(60, 80), picture(70, 50)]
    for found, plain in zip(
        Augmented(predictor, views).predict(images, batch_size=2), predictor.predict(images, batch_size=2), strict=True
    ):
        assert len(found) > 3
        np.testing.assert_array_equal(found.boxes, plain.boxes)
        np.testing.assert_array_equal(found.scores, plain.scores)
        np.testing.assert_array_equal(found.labels, plain.labels)
        assert found.masks == plain.masks


def oracle(predictor: Predictor, image: np.ndarray, views: tuple[ImageView, ...]) -> Instances:
    """One image, one view and one box at a time, by the steps of Detectron2."""
    config, network = predictor.config, predictor.network
    settings = config.model.detect
    _, usual = predictor.prepare(image)
    seen, boxes, scores, labels = [], [], [], []
    for view in views:
        frame = view.frame(image.shape[:2], view.config(config))
        shown = collate_prepared([Augmented(predictor, (view,)).prepare(image).views[0]], view.config(config))
        with torch.no_grad():
            maps = network.features(shown)
            found = network.find_boxes(maps, shown, settings)
        back = usual.matrix @ np.linalg.inv(frame.matrix)
        for slot in range(found.boxes.shape[1]):
            if found.valid[0, slot]:
                moved = transform_boxes(found.boxes[0, slot].double().numpy()[None], back)[0]
                boxes.append(np.clip(moved, 0, np.tile(usual.input_hw[::-1], 2)))
                scores.append(float(found.scores[0, slot]))
                labels.append(int(found.labels[0, slot]))
        seen.append((maps, back, view))
    edges = torch.tensor(np.array(boxes), dtype=torch.float32)
    kept = torchvision.ops.batched_nms(edges, torch.tensor(scores), torch.tensor(labels), settings.nms_iou)
    kept = kept[: settings.max_detections]
    masks: list[Tensor] = []
    for i in kept.tolist():
        probs = []
        for maps, back, view in seen:
            there = transform_boxes(edges[i].double().numpy()[None], np.linalg.inv(back)).astype(np.float32)
            one = Detections(
                torch.from_numpy(there)[None], torch.ones(1, 1), torch.tensor([[labels[i]]]), torch.ones(1, 1) > 0
            )
            with torch.no_grad():
                mask = network.roi_heads.complete(maps, one).mask_probs
            assert mask is not None
            axes = [2] * view.flip_vertical + [3] * view.flip_horizontal
            probs.append(mask.flip(axes))
        masks.append(torch.stack(probs).mean(0)[0, 0])
    merged = Detections(
        edges[kept][None],
        torch.tensor(scores)[kept][None],
        torch.tensor(labels)[kept][None],
        torch.ones(1, len(kept)) > 0,
        torch.stack(masks)[None],
    )
    return postprocess(merged, [usual], config)[0]


@pytest.mark.parametrize("batch_size", [1, 2])
def test_views_are_merged_as_by_the_oracle(batch_size: int) -> None:
    predictor = lively_predictor().with_detections(8)
    images = [picture(60, 80), picture(64, 80)]
    for image, found in zip(images, Augmented(predictor, VIEWS).predict(images, batch_size), strict=True):
        expected = oracle(predictor, image, VIEWS)
        assert_same(found, expected)
        assert not np.array_equal(found.masks.areas(), predictor.predict(image)[0].masks.areas())  # type: ignore[union-attr]


def test_a_mirrored_image_gives_mirrored_objects() -> None:
    augmented = Augmented(lively_predictor(), (ImageView(), ImageView(flip_horizontal=True)))
    image = picture(64, 96)  # the size of the network input, so that resizing and padding are the same on both sides
    (found,), (mirrored,) = augmented.predict(image), augmented.predict(np.ascontiguousarray(image[:, ::-1]))
    assert_same(in_place_order(mirrored.flipped_horizontally()), in_place_order(found))


def test_keypoints_change_sides_with_the_image() -> None:
    names = ("nose", "left_ear", "right_ear")
    config = network_config(num_classes=1, keypoint_head=KeypointHeadConfig(3, convs=1, channels=16))
    config = replace(config, categories=(Category(1, "person", names),))
    augmented = Augmented(
        Predictor(TorchBackend(lively_network(config).eval()), config), (ImageView(), ImageView(flip_horizontal=True))
    )
    image = picture(64, 96)
    (found,), (mirrored,) = augmented.predict(image), augmented.predict(np.ascontiguousarray(image[:, ::-1]))
    assert found.keypoints is not None
    back = in_place_order(mirrored.flipped_horizontally())
    assert back.keypoints == pytest.approx(in_place_order(found).keypoints, abs=1e-3)


def test_usual_views_are_those_of_training() -> None:
    def flips(config: Config) -> set[tuple[bool, bool]]:
        return {(view.flip_horizontal, view.flip_vertical) for view in usual_views(config)}

    config = network_config()
    assert flips(config) == {(False, False), (True, False)}
    upright = replace(config, augment=replace(config.augment, flip_horizontal=0.0, flip_vertical=0.5))
    assert flips(upright) == {(False, False), (False, True)}


def test_views_of_a_square_letterbox_have_sides_that_the_config_allows() -> None:
    config = network_config(MATTERPORT)
    large = replace(config, image=replace(config.image, short_side=800, long_side=1024, divisor=64))
    assert ImageView(0.8).config(large).image.long_side == 832  # 819 is no multiple of 64
    assert ImageView(0.8).frame((600, 900), ImageView(0.8).config(large)).input_hw == (832, 832)
    assert ImageView(1.25).config(large).image.long_side == 1280
    plain = replace(large, conventions=OURS)
    assert ImageView(0.8).config(plain).image.long_side == 819
    (found,) = Augmented(lively_predictor(MATTERPORT)).predict(picture(60, 80))
    assert len(found) > 3


def test_other_engines_are_refused() -> None:
    predictor = lively_predictor()
    exported = replace(predictor, backend=ExportedBackend(lambda inputs: {}, predictor.config.model.detect))
    compiled = replace(predictor, backend=TorchBackend(predictor.network, compile=True))
    for other in (exported, compiled):
        with pytest.raises(ConfigError, match="expected a network in PyTorch that is not compiled"):
            Augmented(other)
