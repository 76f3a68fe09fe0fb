"""The kernel of suppression, by Triton's interpreter, against torchvision's and the slow twin; on a GPU for real."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kernels_without_gpu import DEVICE, ptx
from maskrcnn.ops import nms as nms_module
from maskrcnn.ops.nms import nms
from suppression_cases import clustered, thresholds, valued

pytest.importorskip("triton", reason="Triton comes with torch for Linux alone")
NAME = "maskrcnn.ops.nms_triton"


def by_kernel(boxes: Tensor, valid: Tensor, threshold: float, labels: Tensor | None) -> Tensor:
    from maskrcnn.ops.nms_triton import nms_of_lists

    moved = None if labels is None else labels.to(DEVICE)
    return nms_of_lists(boxes.to(DEVICE), valid.to(DEVICE), threshold, moved).cpu()


@pytest.mark.parametrize("labelled", [False, True])
@pytest.mark.parametrize("count", [1, 63, 64, 65, 200])
def test_equal_to_torchvisions(count: int, labelled: bool) -> None:
    boxes = clustered(count, 3, count)
    valid = torch.rand(3, count, generator=torch.Generator().manual_seed(1)) > 0.2
    labels = torch.randint(0, 3, (3, count), generator=torch.Generator().manual_seed(2)) if labelled else None
    keep = by_kernel(boxes, valid, 0.5, labels)
    assert keep.dtype == torch.bool
    assert torch.equal(keep, nms(boxes, valid, 0.5, labels))


@settings(max_examples=15)
@given(valued(), thresholds, st.booleans())
def test_whole_numbers(case: tuple[Tensor, Tensor, Tensor], threshold: float, labelled: bool) -> None:
    boxes, valid, labels = case
    given_labels = labels if labelled else None
    keep = by_kernel(boxes, valid, threshold, given_labels)
    assert torch.equal(keep, nms(boxes, valid, threshold, given_labels))


def test_chains_longer_than_a_block() -> None:
    # Each box overlaps the next alone: every other one survives, which a block has to find link by link.
    left = torch.arange(150) * 10.0
    boxes = torch.stack([left, torch.zeros(150), left + 15, torch.ones(150)], dim=1)[None]
    keep = by_kernel(boxes, torch.ones(1, 150, dtype=torch.bool), 0.1, None)
    assert keep[0].tolist() == [i % 2 == 0 for i in range(150)]


def test_blocks_of_empty_slots_lie_between_boxes() -> None:
    boxes = clustered(1, 2, 300)
    valid = torch.zeros(2, 300, dtype=torch.bool)
    valid[:, :20] = valid[1, 250:] = True
    keep = by_kernel(boxes, valid, 0.3, None)
    assert torch.equal(keep, nms(boxes, valid, 0.3, None))
    assert keep[1, 250:].any()
    assert not keep[1, 250:].all()


def test_no_boxes() -> None:
    nothing = torch.zeros(2, 0, dtype=torch.bool)
    assert by_kernel(torch.zeros(2, 0, 4), nothing, 0.5, None).shape == (2, 0)


@pytest.mark.slow
@pytest.mark.parametrize("labelled", [False, True])
def test_compiles_for_a_gpu(labelled: bool) -> None:
    signature = {
        **{"boxes": "*fp32", "valid": "*u8", "labels": "*i64", "keep": "*u8", "threshold": "fp32", "count": "i32"},
        **{"labelled": "constexpr", "block": "constexpr"},
    }
    assert ".target sm_90" in ptx(NAME, "_suppress", signature, {"labelled": labelled, "block": 64})


def test_one_operation_to_compilers() -> None:
    boxes, valid = clustered(0, 2, 20), torch.ones(2, 20, dtype=torch.bool)
    labels = torch.zeros(2, 20, dtype=torch.int64)
    for case in (None, labels):
        torch.library.opcheck(nms_module._nms, (boxes, valid, 0.5, case))


@pytest.mark.gpu
@pytest.mark.parametrize("labelled", [False, True])
def test_on_a_gpu(labelled: bool) -> None:
    boxes = clustered(5, 8, 2000)
    valid = torch.rand(8, 2000, generator=torch.Generator().manual_seed(1)) > 0.2
    labels = torch.randint(0, 80, (8, 2000), generator=torch.Generator().manual_seed(2)) if labelled else None
    expected = nms(boxes, valid, 0.7, labels)
    found = nms(boxes.cuda(), valid.cuda(), 0.7, None if labels is None else labels.cuda())
    # A pair whose overlap is the threshold's to the last bit may fall on either side.
    assert (found.cpu() != expected).sum() <= 2
