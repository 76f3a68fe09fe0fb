"""Compares our operations with torchvision's: RoIAlign, non-maximum suppression (NMS), and masks to run lengths."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import hotcoco.mask
import numpy as np
import torch
import torchvision
from torchvision.models.detection.roi_heads import paste_masks_in_image

from maskrcnn.benchmark.measure import Comparison, Sitting, Track, no_track, open_device, quartiles
from maskrcnn.benchmark.memory import Memory, SideName, compare_memory, memory_to_dict
from maskrcnn.benchmark.settings import KernelSettings, Timing
from maskrcnn.errors import ConfigError
from maskrcnn.ops.nms import nms
from maskrcnn.ops.paste import paste_to_runs
from maskrcnn.ops.roi_align import roi_align

# torchvision pastes all masks of an image at once, as two float32 copies: 29 GB for 300 masks on 12 megapixels. Here it
# is given only as many masks at once as fit into this memory.
DENSE_BYTES = 1 << 30
STRIDE = 4  # of the feature map
NMS_LEVELS = 5


@dataclass(frozen=True)
class Case:
    """The same computation by both sides.

    Attributes:
        difference: compares both results: the largest absolute difference, or the fraction of boxes or pixels that
            differ.
        device: the device of the computation.
        needed: bytes that any implementation must read or write; 0 if they do not limit the speed.
    """

    ours: Callable[[], Any]
    theirs: Callable[[], Any]
    difference: Callable[[Any, Any], float]
    device: torch.device
    needed: int = 0


Make = Callable[[KernelSettings, torch.device], Case]


@dataclass(frozen=True)
class KernelResult:
    """
    Attributes:
        difference: as in `Case`; the results agree if it is at most `tolerance`.
        memory: of "ours" and "torchvision"; empty if it was not measured.
        needed: bytes, as in `Case`.
        copy: seconds of a copy that moves as many bytes, one value per round; a lower bound for any implementation.
    """

    name: str
    times: Comparison
    difference: float
    tolerance: float
    memory: dict[str, Memory | None]
    needed: int = 0
    copy: tuple[float, ...] = ()

    @property
    def agree(self) -> bool:
        return self.difference <= self.tolerance


@dataclass(frozen=True)
class KernelReport:
    settings: KernelSettings
    environment: dict[str, Any]
    results: tuple[KernelResult, ...]

    @property
    def agree(self) -> bool:
        return all(result.agree for result in self.results)

    def line(self) -> str:
        verdict = "results agree" if self.agree else "RESULTS DIFFER"
        values = ", ".join(f"{result.name} {result.difference:.1e}" for result in self.results)
        return f"{verdict} (largest difference, or fraction of boxes or pixels): {values}"

    def to_dict(self) -> dict[str, Any]:
        return {
            "bench": "kernels",
            "environment": self.environment,
            "settings": asdict(self.settings),
            "kernels": {
                result.name: {
                    "agreement": {"agree": result.agree, "difference": result.difference},
                    "seconds": result.times.to_dict(),
                    "memory_bytes": memory_to_dict(result.memory),
                    "needed_bytes": result.needed,
                    "copy_seconds": quartiles(result.copy) if result.copy else None,
                }
                for result in self.results
            },
        }


def bench_kernels(settings: KernelSettings, timing: Timing, track: Track = no_track) -> KernelReport:
    """Compares every kernel in float32 on random input.

    Raises:
        ConfigError: the device does not exist, or `timing` asks for compilation or bf16.
    """
    if timing.compile:
        raise ConfigError("kernels are compared without compilation: leave out --compile")
    if timing.precision != "fp32":
        raise ConfigError(f"kernels are compared in fp32: torchvision has none in {timing.precision}")
    sitting = Sitting(timing, open_device(timing.device), track)
    results = tuple(_compare_kernel(name, make, tolerance, settings, sitting) for name, make, tolerance in CASES)
    return KernelReport(settings, sitting.environment(), results)


def _compare_kernel(
    name: str, make: Make, tolerance: float, settings: KernelSettings, sitting: Sitting
) -> KernelResult:
    case = make(settings, sitting.device)
    difference = case.difference(case.ours(), case.theirs())
    sitting = replace(sitting, device=case.device)
    times = sitting.in_turns(lambda _: case.ours(), lambda _: case.theirs())
    memory = compare_memory(partial(_alone, make, settings, case.device), case.device) if sitting.timing.memory else {}
    copy = sitting.copy_times(case.needed) if case.needed else ()
    return KernelResult(name, times, difference, tolerance, memory, case.needed, copy)


def roi_align_case(settings: KernelSettings, device: torch.device, *, backward: bool = False) -> Case:
    """RoIAlign of one map to 7x7 bins with 2x2 samples each; with `backward`, also the gradient of the map. Our input
    is channels-last as in our network, torchvision's is contiguous."""
    generator = torch.Generator().manual_seed(0)
    height, width = settings.map_size
    features = torch.randn(1, settings.channels, height, width, generator=generator).to(device)
    boxes = random_boxes(settings.boxes, (height * STRIDE, width * STRIDE), generator).to(device)
    index = torch.zeros(len(boxes), dtype=torch.int64, device=device)
    indexed = torch.cat([index[:, None].to(boxes.dtype), boxes], dim=1)
    weights = torch.randn(len(boxes), settings.channels, 7, 7, generator=generator).to(device)
    weights_last = weights.to(memory_format=torch.channels_last)
    last = features.to(memory_format=torch.channels_last, copy=True).requires_grad_(backward)
    first = features.requires_grad_(backward)

    def ours() -> torch.Tensor:
        pooled = roi_align([last], boxes, index, index, strides=(STRIDE,), output_size=7)
        return torch.autograd.grad(pooled, last, weights_last)[0] if backward else pooled

    def theirs() -> torch.Tensor:
        pooled = torchvision.ops.roi_align(first, indexed, 7, 1 / STRIDE, 2, aligned=True)
        return torch.autograd.grad(pooled, first, weights)[0] if backward else pooled

    needed = _align_bytes(last, boxes, backward)
    return Case(ours, theirs, lambda a, b: float((a - b).abs().max()), device, needed)


def _align_bytes(features: torch.Tensor, boxes: torch.Tensor, backward: bool) -> int:
    """Bytes of the cells that the boxes touch and of the result; with `backward`, also of both gradients."""
    index = torch.zeros(len(boxes), dtype=torch.int64, device=boxes.device)
    flat = torch.ones_like(features[:, :1]).requires_grad_()
    pooled = roi_align([flat], boxes, index, index, strides=(STRIDE,), output_size=7)
    touched = int(torch.autograd.grad(pooled.sum(), flat)[0].count_nonzero())
    cells = touched + pooled.numel()
    if backward:
        cells += pooled.numel() + flat.numel()
    return cells * features.shape[1] * features.element_size()


def nms_case(settings: KernelSettings, device: torch.device) -> Case:
    """The NMS of the RPN, on five levels separately, each by descending score. About fifty boxes lie around each of a
    few places, as proposals lie around objects."""
    generator = torch.Generator().manual_seed(0)
    places = random_boxes(1 + settings.boxes // 50, (800, 1088), generator)
    boxes = places[torch.randint(len(places), (NMS_LEVELS * settings.boxes,), generator=generator)]
    shift = torch.randn(boxes.shape, generator=generator) * 0.08  # of the side, so that IoUs lie around 0.7
    boxes = (boxes + shift * (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2)).to(device)
    scores = torch.rand(NMS_LEVELS, settings.boxes, generator=generator).sort(descending=True)[0].to(device)
    levels = torch.arange(NMS_LEVELS, device=device).repeat_interleave(settings.boxes)
    lists, valid = boxes.view(NMS_LEVELS, -1, 4), torch.ones_like(scores, dtype=torch.bool)

    def theirs() -> torch.Tensor:
        kept = torchvision.ops.batched_nms(boxes, scores.flatten(), levels, 0.7)
        return torch.zeros_like(valid).flatten().index_fill_(0, kept, True).view_as(valid)

    return Case(lambda: nms(lists, valid, 0.7), theirs, lambda a, b: float((a != b).double().mean()), device)


def masks_case(settings: KernelSettings, device: torch.device) -> Case:
    """28x28 probabilities in boxes of all sizes to run lengths, on the CPU. Ours works inside the boxes; torchvision
    pastes `DENSE_BYTES` of masks at a time into images, which hotcoco encodes."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randn(settings.masks, 1, 5, 5, generator=generator) * 3
    probs = torch.nn.functional.interpolate(coarse, size=(28, 28), mode="bicubic").sigmoid()
    boxes, (height, width) = random_boxes(settings.masks, settings.image_size, generator), settings.image_size
    at_once = max(1, DENSE_BYTES // (2 * 4 * height * width))

    def ours() -> list[bytes]:
        return paste_to_runs(probs[:, 0].numpy(), boxes.numpy(), settings.image_size, rule="expanded_box")

    def theirs() -> list[bytes]:
        found: list[bytes] = []
        for some, where in zip(probs.split(at_once), boxes.split(at_once), strict=True):
            dense = (paste_masks_in_image(some, where, settings.image_size)[:, 0] > 0.5).numpy()
            found.extend(hotcoco.mask.encode(mask)["counts"] for mask in dense)
        return found

    def difference(a: list[bytes], b: list[bytes]) -> float:
        of_a, of_b = ([{"size": list(settings.image_size), "counts": mask} for mask in side] for side in (a, b))
        both = [hotcoco.mask.merge([x, y], intersect=True) for x, y in zip(of_a, of_b, strict=True)]
        either = [hotcoco.mask.merge([x, y], intersect=False) for x, y in zip(of_a, of_b, strict=True)]
        shared, together = (int(np.sum(hotcoco.mask.area(masks))) for masks in (both, either))
        return 1 - shared / max(together, 1)

    return Case(ours, theirs, difference, torch.device("cpu"))


# The name of each kernel, the function that makes its case, and the largest difference that is tolerated.
CASES: tuple[tuple[str, Make, float], ...] = (
    ("RoIAlign", roi_align_case, 1e-4),
    ("RoIAlign, forward and backward", partial(roi_align_case, backward=True), 1e-4),
    ("NMS of five levels", nms_case, 1e-3),
    ("masks to run lengths", masks_case, 1e-4),
)


def random_boxes(count: int, image_hw: tuple[int, int], generator: torch.Generator) -> torch.Tensor:
    """(N, 4) float32 boxes x1 y1 x2 y2 in an image; sides are log-uniform in 0.02..0.5 of its shorter side."""
    height, width = image_hw
    sides = torch.exp(torch.empty(count, 2).uniform_(np.log(0.02), np.log(0.5), generator=generator)) * min(image_hw)
    corner = torch.rand(count, 2, generator=generator) * (torch.tensor([float(width), float(height)]) - sides)
    return torch.cat([corner, corner + sides], dim=1)


def _alone(make: Make, settings: KernelSettings, device: torch.device, side: SideName) -> Callable[[], Any]:
    case = make(settings, device)
    return case.ours if side == "ours" else case.theirs
