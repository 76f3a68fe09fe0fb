"""A step as torch's compiler lowers it for a GPU: whole graphs of few operators, maps in one order, nothing copied."""

from __future__ import annotations

import math
from collections import Counter
from functools import cache
from typing import TYPE_CHECKING

import pytest
import torch

from small_network import network_config
from variants import batch_with_points, network_of

if TYPE_CHECKING:  # the compiler takes seconds to import, also where these tests are not chosen
    from lowered import Lowered

KNOWN = "2.15"  # what `lowered` knows of torch's inside
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not torch.__version__.startswith(KNOWN), reason=f"torch is not {KNOWN}: it differs inside"),
]

pytest.importorskip("triton", reason="Triton comes with torch for Linux alone")

PRODUCTS = {"aten.convolution", "aten.convolution_backward", "aten.addmm", "aten.mm", "aten.bmm", "aten.baddbmm"}
CHANNELS = network_config().model.fpn_channels
OURS = {"maskrcnn.nms", "maskrcnn.pool_averages", "maskrcnn.pool_averages_gradient"}


MASKS = {"forward": 16, "prediction": 200}  # RoIs of the mask branch


@cache
def parts() -> dict[str, Lowered]:
    from lowered import lower

    batch = batch_with_points()
    forward, backward = lower(network_of("FPN").train(), batch.images, batch.targets)
    with torch.no_grad():
        (prediction,) = lower(network_of("FPN").eval().detect, batch.images, network_config().model.detect)
    return {"forward": forward, "backward": backward, "prediction": prediction}


@pytest.fixture(params=["forward", "backward", "prediction"])
def part(request: pytest.FixtureRequest) -> Lowered:
    return parts()[request.param]


def test_it_can_be_replayed(part: Lowered) -> None:
    assert part.replayed


def test_what_the_compiler_does_not_write_itself_are_products_and_selections(part: Lowered) -> None:
    called = {kernel.operator.rpartition(".")[0] for kernel in part.kernels} - {""}
    assert called <= PRODUCTS | OURS | {"aten.topk", "aten.randint"}


def is_map(shape: tuple[int, ...]) -> bool:
    """Of the pyramid or of RoIs: (B, C, h, w), also with cells in pairs."""
    return len(shape) >= 4 and shape[1] == CHANNELS and shape[-2] * shape[-1] > 1


def test_channels_of_maps_lie_together(part: Lowered) -> None:
    """A map in another order is read cell by cell, or turned first."""
    maps = [made for kernel in part.kernels for made in kernel.written if is_map(made[0])]
    assert maps
    assert [(shape, strides) for shape, strides in maps if strides[1] != 1] == []


def test_no_map_is_put_together_from_pieces(part: Lowered) -> None:
    """Neither cell by cell, with atomic additions, nor by copies into views of it."""
    pieces = {"index_put", "copy", "select_scatter", "slice_scatter", "as_strided_scatter", "scatter_add"}
    assert [made for made in part.traced if is_map(made[1]) and made[0].split(".")[1] in pieces] == []


@pytest.mark.parametrize("name", MASKS)
def test_a_quarter_of_the_mask_pixels_is_made_by_a_product_and_a_relu_alone(name: str) -> None:
    """And all of them, which have twice the resolution, are never one map."""
    made = Counter(shape for kernel in parts()[name].kernels for shape, _ in kernel.written)
    rois, pixels = MASKS[name], 14 * 14
    assert made[rois * pixels, CHANNELS] == made[rois, pixels, CHANNELS] == 4
    assert not [shape for shape in made if math.prod(shape) == 4 * rois * pixels * CHANNELS]
