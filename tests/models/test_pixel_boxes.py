"""The rules of Detectron and maskrcnn-benchmark, against float64 twins of their published formulas.

Their boxes name the first and last pixel: what has the edges x1 y1 x2 y2 here is x1 y1 x2-1 y2-1 there.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from maskrcnn.config import Config, KeypointHeadConfig, ModelConfig, RoIConfig
from maskrcnn.config.conventions import (
    DETECTRON,
    MASKRCNN_BENCHMARK,
    OURS,
    BoxRules,
    KeypointRules,
    PixelRules,
    ProposalRules,
)
from maskrcnn.errors import ConfigError
from maskrcnn.models.anchors import Anchors, cell_anchors
from maskrcnn.models.branches import keypoint, mask
from maskrcnn.models.branches.keypoint import KeypointHead
from maskrcnn.models.build import build_model
from maskrcnn.models.pooler import RoIPooler
from maskrcnn.models.rois import RoIs
from maskrcnn.models.rpn import RPNOutput
from maskrcnn.ops import boxes as box_ops
from maskrcnn.ops.keypoints import keypoint_targets
from maskrcnn.ops.mask_targets import mask_targets
from maskrcnn.ops.resize import network_size, resize_image
from maskrcnn.predict import postprocess
from maskrcnn.structures.detections import Detections
from maskrcnn.structures.frame import frame_of_size, network_frame
from small_network import batch_of, lively_network, network_config, sample_of

LAST = torch.tensor([0.0, 0.0, 1.0, 1.0])  # from edges to pixels
side = st.floats(1, 300)
place = st.floats(-50, 500)


@pytest.mark.parametrize(
    ("stride", "size", "published"),
    [
        (4, 32.0, [[-22, -10, 25, 13], [-14, -14, 17, 17], [-10, -22, 13, 25]]),
        (16, 128.0, [[-84, -40, 99, 55], [-56, -56, 71, 71], [-36, -80, 51, 95]]),
    ],
)
def test_anchors_are_the_published_ones(stride: int, size: float, published: list[list[int]]) -> None:
    """The numbers in the comments of Detectron's and py-faster-rcnn's `generate_anchors.py`."""
    anchors = Anchors([[size]], [0.5, 1.0, 2.0], [stride], DETECTRON.anchors)
    found = anchors([(2, 2)], (2 * stride, 2 * stride), torch.device("cpu"))[0] - LAST
    assert found[:3].tolist() == published
    assert found[9:].tolist() == (torch.tensor(published) + stride).tolist()


@pytest.mark.parametrize("stride", [4, 8, 16, 32, 64])
def test_anchors_of_several_sizes(stride: int) -> None:
    sizes, ratios = [32.0, 64.0, 128.0], [0.5, 1.0, 2.0, 3.3]
    expected = []
    for ratio in ratios:
        width = np.round(np.sqrt(stride * stride / ratio))
        height = np.round(width * ratio)
        for size in sizes:
            centre = 0.5 * (stride - 1)
            w, h = width * size / stride, height * size / stride
            expected.append(
                [centre - 0.5 * (w - 1), centre - 0.5 * (h - 1), centre + 0.5 * (w - 1), centre + 0.5 * (h - 1)]
            )
    found = cell_anchors(sizes, ratios, stride, "base") + stride / 2 - LAST
    torch.testing.assert_close(found.double(), torch.tensor(np.array(expected)))


@given(place, place, side, side, st.tuples(*[st.floats(-2, 2)] * 4))
def test_coding_with_plus_one_is_coding_of_edges(
    x: float, y: float, w: float, h: float, delta: tuple[float, float, float, float]
) -> None:
    """`bbox_transform` of Detectron, `BoxCoder.decode` of maskrcnn-benchmark."""
    weights = (10.0, 10.0, 5.0, 5.0)
    x2, y2 = x + w - 1, y + h - 1
    width, height = x2 - x + 1, y2 - y + 1
    centre_x, centre_y = x + 0.5 * width, y + 0.5 * height
    dx, dy, dw, dh = (value / weight for value, weight in zip(delta, weights, strict=True))
    moved_x, moved_y = dx * width + centre_x, dy * height + centre_y
    new_w, new_h = math.exp(dw) * width, math.exp(dh) * height
    expected = [moved_x - 0.5 * new_w, moved_y - 0.5 * new_h, moved_x + 0.5 * new_w - 1, moved_y + 0.5 * new_h - 1]
    anchor = torch.tensor([x, y, x2 + 1, y2 + 1], dtype=torch.float64)
    found = box_ops.decode(torch.tensor(delta, dtype=torch.float64), anchor, weights) - LAST
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize("ratio", [0, 2])
def test_rois_span_first_to_last_pixel(ratio: int) -> None:
    """Caffe2's RoIAlign on x1 y1 x2 y2 of pixels, and the level by the area with "+ 1"."""
    generator = torch.Generator().manual_seed(0)
    maps = [torch.randn(2, 3, 64 // 2**i, 96 // 2**i, generator=generator) for i in range(4)]
    corner = torch.rand(40, 2, generator=generator) * 100
    pixels = torch.cat([corner, corner + torch.rand(40, 2, generator=generator) * 280], dim=1)
    pixels[0] = torch.tensor([8.0, 8.0, 8.0 + 223, 8.0 + 223])  # of level 4 only with "+ 1"
    image = torch.arange(40) % 2
    area = (pixels[:, 2] - pixels[:, 0] + 1).double() * (pixels[:, 3] - pixels[:, 1] + 1).double()
    level = torch.floor(4 + torch.log2(area.sqrt() / 224 + 1e-6)).clamp(2, 5).int() - 2
    assert level[0] == 2
    rois = torch.cat([image[:, None].float(), pixels], dim=1)
    strides = [4, 8, 16, 32]
    expected = torch.zeros(40, 3, 7, 7)
    for i, stride in enumerate(strides):
        pooled = torchvision.ops.roi_align(maps[i], rois[level == i], 7, 1 / stride, ratio, aligned=False)
        expected[level == i] = pooled
    pooler = RoIPooler(strides, RoIConfig(sampling_ratio=ratio), torch.nn.Identity(), MASKRCNN_BENCHMARK)
    read = pooler.on([m.contiguous(memory_format=torch.channels_last) for m in maps])
    found = read(pixels + LAST, image, 7)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_mask_and_keypoint_maps_span_what_the_features_do(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[Tensor] = []

    def targets_of(boxes: Tensor, *args: Any, **settings: Any) -> Tensor:
        taken.append(boxes)
        return mask_targets(boxes, *args, **settings)

    def cells_of(points: Tensor, boxes: Tensor, cells: int) -> tuple[Tensor, Tensor]:
        taken.append(boxes)
        return keypoint_targets(points, boxes, cells)

    monkeypatch.setattr(mask, "mask_targets", targets_of)
    monkeypatch.setattr(keypoint, "keypoint_targets", cells_of)
    rules = replace(OURS, boxes=BoxRules(end="roi_last_pixel"))
    config = network_config(rules, keypoint_head=KeypointHeadConfig(2, convs=1, channels=8))
    network = build_model(config)
    batch = batch_of(sample_of(64, 96, [(0, (10, 12, 40, 44))]))
    targets = replace(batch.targets, keypoints=torch.tensor([[[[20.0, 20.0, 2.0], [30.0, 30.0, 2.0]]]]))
    boxes = torch.tensor([[[9.0, 11.0, 42.0, 45.0]]])
    yes, zero = torch.ones(1, 1, dtype=torch.bool), torch.zeros(1, 1, dtype=torch.int64)
    rois = RoIs(boxes, zero, zero, yes, yes, ~yes)
    read = network.roi_heads.pooler.on(network.features(batch.images))
    for branch in (network.roi_heads.mask, network.roi_heads.keypoint):
        assert branch is not None
        branch.losses(read, [rois], targets)
    assert [part.tolist() for part in taken] == [[[9.0, 11.0, 41.0, 44.0]]] * 2


def test_boxes_and_masks_come_back_as_pixels() -> None:
    """`BoxList.resize`, and Detectron's `segm_results` on the scaled pixels."""
    config = Config(ModelConfig(num_classes=2), conventions=MASKRCNN_BENCHMARK)
    probs = torch.rand(1, 1, 28, 28, generator=torch.Generator().manual_seed(3))
    pixels = torch.tensor([20.0, 31.0, 120.5, 171.25])
    found = Detections(
        (pixels + LAST)[None, None], torch.ones(1, 1), torch.zeros(1, 1, dtype=torch.int64), torch.ones(1, 1) > 0, probs
    )
    (instances,) = postprocess(found, [frame_of_size((100, 150), (200, 300))], config)
    there = pixels.double() / 2
    np.testing.assert_allclose(instances.boxes[0], (there + LAST).numpy(), rtol=1e-6)
    assert instances.masks is not None
    np.testing.assert_array_equal(instances.masks.dense()[0], pasted(probs[0, 0], there.tolist(), 100, 150))


def pasted(probs: Tensor, box: list[float], height: int, width: int) -> np.ndarray:
    """Detectron's way, in float32: pad, expand, truncate, resize, threshold."""
    padded = F.pad(probs, (1, 1, 1, 1))
    x1, y1, x2, y2 = (np.float32(edge) for edge in box)
    scale = np.float32(30.0 / 28.0)
    half_w, half_h = (x2 - x1) * np.float32(0.5) * scale, (y2 - y1) * np.float32(0.5) * scale
    cx, cy = (x2 + x1) * np.float32(0.5), (y2 + y1) * np.float32(0.5)
    left, top, right, bottom = (int(edge) for edge in (cx - half_w, cy - half_h, cx + half_w, cy + half_h))
    size = (max(bottom - top + 1, 1), max(right - left + 1, 1))
    mask = F.interpolate(padded[None, None], size=size, mode="bilinear", align_corners=False)[0, 0].numpy() > 0.5
    image = np.zeros((height, width), dtype=bool)
    x, y = max(left, 0), max(top, 0)
    part = mask[y - top : min(bottom + 1, height) - top, x - left : min(right + 1, width) - left]
    image[y : y + part.shape[0], x : x + part.shape[1]] = part
    return image


@given(st.integers(20, 2500), st.integers(20, 2500), st.sampled_from([(800, 1333), (600, 1000), (799, 801)]))
def test_sizes_of_maskrcnn_benchmark(height: int, width: int, limits: tuple[int, int]) -> None:
    """`Resize.get_size` of its transforms."""
    size, most = limits
    low, high = float(min(width, height)), float(max(width, height))
    if high / low * size > most:
        size = round(most * low / high)
    expected = (int(size * height / width), size) if width < height else (size, int(size * width / height))
    if (width <= height and width == size) or (height <= width and height == size):
        expected = (height, width)
    found = network_size(height, width, short_side=limits[0], long_side=most, rounding="short_side")
    assert found == (max(expected[0], 1), max(expected[1], 1))


def test_exact_scale_moves_pixels_by_the_scale() -> None:
    """OpenCV's `resize(image, None, None, fx=scale, fy=scale)`: output pixel i reads at (i + 0.5) / scale - 0.5."""
    image = torch.randint(0, 256, (3, 23, 31), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    scale = 40 / 23 + 0.01
    size = (round(23 * scale), round(31 * scale))

    def taps(count: int, last: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        at = np.clip((np.arange(count) + 0.5) / scale - 0.5, 0, None)
        low = np.minimum(np.floor(at).astype(int), last)
        return low, np.minimum(low + 1, last), at - low

    y0, y1, fy = taps(size[0], 22)
    x0, x1, fx = taps(size[1], 30)
    values = image.double().numpy()
    rows = values[:, y0] * (1 - fy)[None, :, None] + values[:, y1] * fy[None, :, None]
    expected = rows[:, :, x0] * (1 - fx) + rows[:, :, x1] * fx
    found = resize_image(image, size, "bilinear", scale)
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-3)
    assert (resize_image(image, size, "bilinear") - found).abs().max() > 1

    rules = replace(OURS, pixels=PixelRules(kernel="bilinear", exact_scale=True))
    config = Config(ModelConfig(num_classes=2), conventions=rules)
    box = torch.tensor([[[8.0, 16.0, 80.0, 160.0]]])
    found_boxes = Detections(box, torch.ones(1, 1), torch.zeros(1, 1, dtype=torch.int64), torch.ones(1, 1) > 0)
    (instances,) = postprocess(found_boxes, [network_frame((333, 499), config)], config)
    np.testing.assert_allclose(instances.boxes[0], box[0, 0].numpy() * 333 / 800, rtol=1e-6)
    with pytest.raises(ConfigError, match="exact_scale"):
        PixelRules(exact_scale=True)


def test_the_best_proposals_of_the_batch() -> None:
    """`select_over_all_levels` of maskrcnn-benchmark in training: the best of both images together."""
    network = lively_network(network_config()).train()
    batch = batch_of(sample_of(64, 96, [(0, (2, 2, 40, 40))]), sample_of(64, 96, [(0, (2, 2, 40, 40))]))
    output = network.rpn(network.features(batch.images), batch.images.pixels.shape[-2:])
    output = RPNOutput(
        [logits + torch.tensor([[0.0], [0.1]]) for logits in output.logits], output.deltas, output.anchors
    )
    each: Any = replace(network.rpn.config, post_nms_train=20)
    network.rpn.config = each
    assert network.rpn.propose(output, batch.images.sizes_hw).valid.sum(1).tolist() == [20, 20]
    network.rpn.conventions = replace(OURS, proposals=ProposalRules(post_nms_per="batch"))
    counts = network.rpn.propose(output, batch.images.sizes_hw).valid.sum(1)
    assert counts.sum() == 20
    assert counts[1] > counts[0]
    network.eval()
    network.rpn.config = replace(network.rpn.config, post_nms_test=20)
    assert network.rpn.propose(output, batch.images.sizes_hw).valid.sum(1).tolist() == [20, 20]


def test_keypoint_maps_with_zeros_around() -> None:
    """`BilinearInterpolation` of Detectron: a transposed convolution with a bilinear kernel of 4 x 4."""
    torch.manual_seed(0)
    config = KeypointHeadConfig(3, convs=1, channels=8)
    plain, zero = (KeypointHead(8, config, KeypointRules(border)) for border in ("repeat", "zero"))
    zero.load_state_dict(plain.state_dict())
    features = torch.randn(2, 8, 14, 14)
    low = plain.predictor(F.relu(plain.convs[0](features)))
    line = torch.tensor([0.25, 0.75, 0.75, 0.25])
    kernel = (line[:, None] * line).expand(3, 1, 4, 4)
    expected = F.conv_transpose2d(low, kernel, stride=2, padding=1, groups=3)
    torch.testing.assert_close(zero(features), expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(plain(features)[..., 1:-1, 1:-1], expected[..., 1:-1, 1:-1], atol=1e-5, rtol=1e-5)
    assert not torch.allclose(plain(features), expected)
