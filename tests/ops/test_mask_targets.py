"""Mask targets read from cropped bitmaps, against the dense bitmap, torchvision and the slow twin."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torchvision.models.detection.roi_heads import project_masks_on_boxes
from torchvision.ops import roi_align

from maskrcnn.ops.mask_targets import MaskCrops, mask_targets, sample_bitmaps
from maskrcnn.ops.reference import rois as rois_reference

HW = (40, 56)  # height, width
IDENTITY = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
FLIP_X = np.array([[-1.0, 0.0, HW[1]], [0.0, 1.0, 0.0]])
FLIP_Y = np.array([[1.0, 0.0, 0.0], [0.0, -1.0, HW[0]]])
TURN = np.array([[0.0, 1.0, 0.0], [-1.0, 0.0, HW[0]]])  # network (x, y) to original (y, height - x)
HALF = np.array([[0.5, 0.0, 3.0], [0.0, 0.5, -2.0]])  # the network sees twice the size, shifted
DOUBLE = np.array([[1.9, 0.0, 0.0], [0.0, 2.1, 0.0]])


def blobs(count: int, seed: int = 0) -> np.ndarray:
    """(count, H, W) uint8: ellipses, some cut by the border, each with a hole; the first fills the image."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: HW[0], : HW[1]]
    masks = []
    for i in range(count):
        cy, cx = rng.uniform(0, HW[0]), rng.uniform(0, HW[1])
        ry, rx = rng.uniform(4, 20, 2)
        radius = ((y - cy) / ry) ** 2 + ((x - cx) / rx) ** 2
        mask = (radius < 1) & (radius > 0.05)
        masks.append(np.ones_like(mask) if i == 0 else mask)
    return np.stack(masks).astype(np.uint8)


def bank(masks: np.ndarray, matrix: np.ndarray = IDENTITY) -> MaskCrops:
    """The flat buffer of crops of the tight boxes; between two crops lie ones that nobody may read."""
    pixels, offsets, sizes, origins = [np.ones(3, dtype=np.uint8)], [], [], []
    for mask in masks:
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        crop = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        offsets.append(sum(part.size for part in pixels))
        sizes.append(crop.shape)
        origins.append((columns[0], rows[0]))
        pixels += [crop.ravel(), np.ones(7, dtype=np.uint8)]
    count = len(masks)
    return MaskCrops(
        torch.from_numpy(np.concatenate(pixels)),
        torch.tensor(offsets),
        torch.tensor(sizes),
        torch.tensor(np.array(origins)),
        torch.from_numpy(matrix.astype(np.float32)).expand(count, 2, 3),
        torch.tensor(HW).expand(count, 2),
    )


def targets_of(masks: np.ndarray, boxes: np.ndarray, matrix: np.ndarray, **options: object) -> np.ndarray:
    rois = torch.from_numpy(boxes.astype(np.float32))
    return mask_targets(rois, bank(masks, matrix), **options).numpy()  # type: ignore[arg-type]


def boxes_near(masks: np.ndarray, seed: int, reach: float = 6) -> np.ndarray:
    """(N, 4) float64 RoIs around the objects, inside the image."""
    rng = np.random.default_rng(seed)
    boxes = []
    for mask in masks:
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        box = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]) + rng.uniform(-reach, reach, 4)
        low = np.clip(box[:2], 0, [HW[1] - 2, HW[0] - 2])
        boxes.append([*low, *np.clip(box[2:], low + 0.3, [HW[1], HW[0]])])
    return np.array(boxes)


@pytest.mark.parametrize("size", [7, 28])
def test_torchvisions_rule_is_torchvisions_result(size: int) -> None:
    masks = blobs(30)
    boxes = boxes_near(masks, 1)
    boxes[0] = [0, 0, HW[1], HW[0]]
    boxes[1] = [0, 3, 0.4, 3.2]  # thinner than a pixel
    found = targets_of(masks, boxes, IDENTITY, size=size, sampling_ratio=0, aligned=False)
    rois = torch.from_numpy(boxes.astype(np.float32))
    expected = project_masks_on_boxes(torch.from_numpy(masks), rois, torch.arange(30), size).numpy()
    touching = masks[:, [0, -1], :].any((1, 2)) | masks[:, :, [0, -1]].any((1, 2))
    assert touching.sum() > 5  # objects cut by the border are among them
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_an_object_on_the_border_is_whole_up_to_it() -> None:
    """Without the border rule the outermost half pixel would fade into the outside."""
    masks = np.ones((1, *HW), dtype=np.uint8)
    full = np.array([[0.0, 0.0, HW[1], HW[0]]])
    for options in ({"sampling_ratio": 0, "aligned": False}, {"sampling_ratio": 2, "aligned": True}):
        assert (targets_of(masks, full, IDENTITY, size=28, **options) == 1).all()
    inner = masks.copy()
    inner[:, 0] = 0
    assert targets_of(inner, full, IDENTITY, size=28)[0, 0].max() < 1


@given(
    st.integers(0, 10_000),
    st.sampled_from([IDENTITY, FLIP_X, FLIP_Y, TURN, HALF, DOUBLE]),
    st.integers(0, 2),
    st.booleans(),
    st.sampled_from([None, 0.5]),
)
def test_equal_to_the_twin(
    seed: int, matrix: np.ndarray, sampling_ratio: int, aligned: bool, threshold: float | None
) -> None:
    masks = blobs(3, seed % 50)[1:]
    full = np.concatenate([matrix, [[0.0, 0.0, 1.0]]])
    corners = boxes_near(masks, seed).reshape(-1, 2, 2) @ np.linalg.inv(full)[:2, :2].T + np.linalg.inv(full)[:2, 2]
    boxes = np.concatenate([corners.min(1), corners.max(1)], axis=1).astype(np.float32)
    found = targets_of(masks, boxes, matrix, size=5, sampling_ratio=sampling_ratio, aligned=aligned, threshold=None)
    for target, mask, box in zip(found, masks, boxes, strict=True):
        expected = rois_reference.mask_target(
            mask.astype(np.float64), box.tolist(), matrix, size=5, sampling_ratio=sampling_ratio, aligned=aligned
        )
        np.testing.assert_allclose(target, expected, atol=2e-4)
        assert target.min() >= 0
        assert target.max() <= 1 + 1e-6
    if threshold is not None:
        binary = targets_of(
            masks, boxes, matrix, size=5, sampling_ratio=sampling_ratio, aligned=aligned, threshold=threshold
        )
        np.testing.assert_array_equal(binary, (found >= threshold).astype(np.float32))


@pytest.mark.parametrize(
    ("matrix", "warp"),
    [
        (FLIP_X, lambda m: m[:, :, ::-1]),
        (FLIP_Y, lambda m: m[:, ::-1]),
        (TURN, lambda m: m[:, ::-1].transpose(0, 2, 1)),
    ],
    ids=["horizontal flip", "vertical flip", "quarter turn"],
)
def test_flips_and_turns_are_those_of_the_dense_mask(matrix: np.ndarray, warp: object) -> None:
    masks = blobs(12)
    warped = np.ascontiguousarray(warp(masks))  # type: ignore[operator]
    side = min(warped.shape[1:])
    boxes = np.random.default_rng(2).uniform(0, side / 2, (12, 4))
    boxes[:, 2:] += side / 2
    found = targets_of(masks, boxes, matrix, size=14)
    expected = [
        rois_reference.mask_target(
            mask.astype(np.float64), box.astype(np.float32).tolist(), IDENTITY, size=14, sampling_ratio=2, aligned=True
        )
        for mask, box in zip(warped, boxes, strict=True)
    ]
    np.testing.assert_allclose(found, expected, atol=2e-4)


def test_enlarged_by_a_whole_factor_is_the_enlarged_dense_mask() -> None:
    """Targets from original pixels against those from a mask resized first: equal but for the blur between pixels."""
    masks = blobs(12)
    enlarged = masks.repeat(4, axis=1).repeat(4, axis=2)
    boxes = boxes_near(masks, 4) * 4
    quarter = np.array([[0.25, 0.0, 0.0], [0.0, 0.25, 0.0]])
    found = targets_of(masks, boxes, quarter, size=14, threshold=0.5)
    rois = torch.from_numpy(boxes.astype(np.float32))
    dense = project_masks_on_boxes(torch.from_numpy(enlarged), rois, torch.arange(12), 14).numpy()
    large = (boxes[:, 2:] - boxes[:, :2]).min(1) > 20
    assert (found[large] == (dense[large] >= 0.5)).mean() > 0.97


def test_points_outside_the_crop_and_the_image_are_background() -> None:
    masks = np.zeros((1, *HW), dtype=np.uint8)
    masks[0, 10:20, 10:20] = 1
    points = torch.tensor([[[10.5, 10.5], [19.5, 19.5], [9.5, 12.0], [10.0, 12.0], [20.0, 12.0], [60.0, 12.0]]])
    found = sample_bitmaps(bank(masks), points)
    assert found.tolist() == [[1.0, 1.0, 0.0, 0.5, 0.5, 0.0]]
    far = torch.tensor([[[float("nan"), 12.0], [float("inf"), 12.0], [3e38, -3e38], [-1e9, 12.0]]])
    assert sample_bitmaps(bank(masks), far).tolist() == [[0.0] * 4]


def test_adaptive_samples_do_not_depend_on_the_other_rois() -> None:
    masks = blobs(6)
    boxes = boxes_near(masks, 5)
    together = targets_of(masks, boxes, IDENTITY, size=3, sampling_ratio=0)
    alone = [targets_of(masks[i : i + 1], boxes[i : i + 1], IDENTITY, size=3, sampling_ratio=0)[0] for i in range(6)]
    np.testing.assert_allclose(together, alone, atol=1e-6)


def test_no_rois() -> None:
    empty = torch.zeros(0, 2, dtype=torch.int64)
    bitmaps = MaskCrops(torch.zeros(5, dtype=torch.uint8), empty[:, 0], empty, empty, torch.zeros(0, 2, 3), empty)
    assert mask_targets(torch.zeros(0, 4), bitmaps, size=28).shape == (0, 28, 28)


def test_autocast_does_not_round_targets() -> None:
    masks = blobs(4)
    exact = targets_of(masks, boxes_near(masks, 6), IDENTITY, size=14)
    with torch.autocast("cpu", torch.bfloat16):
        found = targets_of(masks, boxes_near(masks, 6), IDENTITY, size=14)
    np.testing.assert_array_equal(found, exact)


@pytest.mark.parametrize("network_hw", [(53, 71), (29, 41), HW])
def test_resized_is_roi_align_of_the_bitmap_resized_by_nearest_neighbour(network_hw: tuple[int, int]) -> None:
    """Detectron2's `BitMasks`: resized with the image by PIL, then RoIAlign and the threshold.

    Sides at which no centre falls between two pixels, where PIL decides by the sum of its rounding errors.
    """
    masks = blobs(6)
    scale = np.array([network_hw[1] / HW[1], network_hw[0] / HW[0]])
    boxes = (boxes_near(masks, seed=5) * np.tile(scale, 2)).astype(np.float32)
    dense = [Image.fromarray(mask).resize(network_hw[::-1], Image.Resampling.NEAREST) for mask in masks]
    maps = torch.from_numpy(np.stack([np.array(mask) for mask in dense])).float()[:, None]
    rois = torch.cat([torch.arange(6)[:, None], torch.from_numpy(boxes)], dim=1)
    expected = roi_align(maps, rois, (14, 14), 1.0, 0, aligned=True)[:, 0] >= 0.5
    matrix = np.array([[1 / scale[0], 0, 0], [0, 1 / scale[1], 0]])
    rule: dict[str, object] = {"size": 14, "sampling_ratio": 0, "threshold": 0.5}
    found = targets_of(masks, boxes, matrix, pixels="network", **rule)
    assert (found != expected.numpy()).mean() < 1e-3  # averages within rounding of a half
    if network_hw != HW:
        assert (targets_of(masks, boxes, matrix, **rule) != expected.numpy()).mean() > 2e-3


@pytest.mark.parametrize("flipped", [False, True])
@pytest.mark.parametrize("network_hw", [(53, 71), (29, 41), HW])
def test_network_corner_is_roi_align_of_the_bitmap_resized_as_opencv_does(
    network_hw: tuple[int, int], flipped: bool
) -> None:
    """INTER_NEAREST reads the pixel under each one's top left corner; the flip comes after it (MMDetection)."""
    masks = blobs(6)
    height, width = network_hw
    rows, columns = (np.arange(n) * before // n for n, before in zip(network_hw, HW, strict=True))
    resized = masks[:, rows][:, :, columns]
    if flipped:
        resized = resized[:, :, ::-1].copy()
    scale = np.array([width / HW[1], height / HW[0]])
    boxes = (boxes_near(masks, seed=5) * np.tile(scale, 2)).astype(np.float32)
    matrix = np.array([[1 / scale[0], 0, 0], [0, 1 / scale[1], 0]])
    if flipped:
        boxes[:, [0, 2]] = width - boxes[:, [2, 0]]
        matrix[0] = -1 / scale[0], 0, HW[1]
    rois = torch.cat([torch.arange(6)[:, None], torch.from_numpy(boxes)], dim=1)
    expected = roi_align(torch.from_numpy(resized).float()[:, None], rois, (14, 14), 1.0, 0, aligned=True)[:, 0] >= 0.5
    rule: dict[str, object] = {"size": 14, "sampling_ratio": 0, "threshold": 0.5}
    found = targets_of(masks, boxes, matrix, pixels="network_corner", **rule)
    assert (found != expected.numpy()).mean() < 1e-3  # averages within rounding of a half
    if network_hw != HW:
        assert (targets_of(masks, boxes, matrix, pixels="network", **rule) != expected.numpy()).mean() > 2e-3


def test_resized_keeps_still_where_coordinates_are_no_numbers() -> None:
    boxes = np.full((1, 4), np.nan)
    found = targets_of(blobs(1), boxes, IDENTITY, size=4, sampling_ratio=2, pixels="network")
    assert np.isfinite(found).all()


@pytest.mark.parametrize("matrix", [IDENTITY, FLIP_X, HALF])
@pytest.mark.parametrize("size", [1, 5, 28])
def test_crop_and_resize_equals_the_twin(matrix: np.ndarray, size: int) -> None:
    masks = blobs(4)
    full = np.concatenate([matrix, [[0.0, 0.0, 1.0]]])
    corners = boxes_near(masks, 3).reshape(-1, 2, 2) @ np.linalg.inv(full)[:2, :2].T + np.linalg.inv(full)[:2, 2]
    boxes = np.concatenate([corners.min(1), corners.max(1)], axis=1).astype(np.float32)
    if size == 1:  # both ends of nothing: the first
        boxes[:, 2:] = boxes[:, :2]
    found = targets_of(masks, boxes, matrix, size=size, crop_and_resize=True)
    for target, mask, box in zip(found, masks, boxes, strict=True):
        expected = rois_reference.mask_target(
            mask.astype(np.float64),
            box.tolist(),
            matrix,
            size=size,
            sampling_ratio=1,
            aligned=True,
            crop_and_resize=True,
        )
        np.testing.assert_allclose(target, expected, atol=2e-4)


def test_crop_and_resize_reads_pixels_as_they_are() -> None:
    """28 samples from pixel to pixel of 28 are these pixels."""
    masks = blobs(1)
    found = targets_of(masks, np.array([[3.0, 5.0, 30.0, 32.0]]), IDENTITY, size=28, crop_and_resize=True)
    np.testing.assert_allclose(found[0], masks[0, 5:33, 3:31], atol=1e-4)
