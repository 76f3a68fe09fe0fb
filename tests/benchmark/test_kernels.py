from __future__ import annotations

import pytest
import torch

from maskrcnn.benchmark.kernels import (
    CASES,
    _align_bytes,
    bench_kernels,
    masks_case,
    nms_case,
    random_boxes,
    roi_align_case,
)
from maskrcnn.benchmark.settings import KernelSettings, Timing
from maskrcnn.errors import ConfigError

SMALL = KernelSettings(boxes=20, channels=4, map_size=(32, 40), masks=6, image_size=(120, 160))
CPU = torch.device("cpu")


def test_every_kernel_is_compared() -> None:
    report = bench_kernels(SMALL, Timing(rounds=2, memory=False))
    assert [result.name for result in report.results] == [name for name, _, _ in CASES]
    assert report.agree
    assert "results agree" in report.line()
    found = report.to_dict()
    assert set(found["kernels"]) == {name for name, _, _ in CASES}
    assert all(kernel["agreement"]["agree"] for kernel in found["kernels"].values())
    assert all(kernel["seconds"]["ratio"] > 0 for kernel in found["kernels"].values())
    assert [kernel["needed_bytes"] > 0 for kernel in found["kernels"].values()] == [True, True, False, False]
    assert found["kernels"]["RoIAlign"]["copy_seconds"]["median"] > 0


def test_bytes_needed_are_those_of_the_cells_touched_and_the_results() -> None:
    """One box over the whole map of 32 x 40 cells, in bins of 4.6 x 5.7: two samples a bin read 4 cells of each axis
    but where bins share them."""
    features, box = torch.zeros(1, 4, 32, 40), torch.tensor([[0.0, 0.0, 160.0, 128.0]])
    cells = [{int(c) + i for c in (torch.arange(14) + 0.5) / 14 * n - 0.5 for i in (0, 1)} for n in (32, 40)]
    touched = len(cells[0]) * len(cells[1])
    assert _align_bytes(features, box, backward=False) == (touched + 49) * 4 * 4
    assert _align_bytes(features, box, backward=True) == (touched + 2 * 49 + 32 * 40) * 4 * 4


def test_a_wrong_result_is_noticed() -> None:
    align = roi_align_case(SMALL, CPU)
    assert align.difference(align.ours() + 0.1, align.theirs()) > CASES[0][2]
    gradient = roi_align_case(SMALL, CPU, backward=True)
    assert gradient.difference(gradient.ours() * 1.1, gradient.theirs()) > CASES[1][2]
    suppress = nms_case(SMALL, CPU)
    assert suppress.difference(~suppress.ours(), suppress.theirs()) > CASES[2][2]
    assert 0.1 < suppress.ours().double().mean() < 0.8  # many boxes are suppressed, many are not
    masks = masks_case(SMALL, CPU)
    assert masks.difference(masks.ours()[::-1], masks.theirs()) > CASES[3][2]


def test_dense_masks_are_pasted_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = masks_case(SMALL, CPU).theirs()
    monkeypatch.setattr("maskrcnn.benchmark.kernels.DENSE_BYTES", 4 * 2 * 4 * 120 * 160)
    assert masks_case(SMALL, CPU).theirs() == whole
    assert len(whole) == 6


def test_boxes_lie_in_the_image() -> None:
    boxes = random_boxes(500, (60, 90), torch.Generator().manual_seed(0))
    assert (boxes >= 0).all()
    assert (boxes[:, [0, 2]] <= 90).all()
    assert (boxes[:, [1, 3]] <= 60).all()
    sides = boxes[:, 2:] - boxes[:, :2]
    assert 0.02 * 60 <= sides.min() < 0.03 * 60
    assert 0.4 * 60 < sides.max() <= 0.5 * 60 + 1e-4


def test_bf16_is_refused() -> None:
    with pytest.raises(ConfigError, match="compared in fp32"):
        bench_kernels(SMALL, Timing(precision="bf16"))


@pytest.mark.gpu
def test_on_a_gpu() -> None:
    report = bench_kernels(SMALL, Timing(rounds=2, device="cuda"))
    assert report.agree
    assert all(result.memory["ours"] is not None for result in report.results)
