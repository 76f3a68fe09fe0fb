"""The operations around the convolutions, ours beside torchvision's: RoIAlign, suppression, masks to run lengths."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import hotcoco.mask
import numpy as np
import torch
import torchvision
from torchvision.models.detection.roi_heads import paste_masks_in_image

from maskrcnn.benchmark.measure import (
    Comparison,
    Track,
    copy_times,
    environment,
    in_turns,
    no_track,
    open_device,
    quartiles,
)
from maskrcnn.benchmark.memory import Memory, compare_memory, memory_to_dict
from maskrcnn.benchmark.settings import KernelSettings, Protocol
from maskrcnn.errors import ConfigError
from maskrcnn.ops.nms import nms
from maskrcnn.ops.paste import paste_to_runs
from maskrcnn.ops.roi_align import roi_align

# torchvision pastes all masks of an image at once, in float32 and twice: 29 GB for 300 masks on 12 megapixels. Here it
# is given as many as fit into this.
DENSE_BYTES = 1 << 30
STRIDE = 4  # of the feature map
LEVELS = 5  # of suppression


@dataclass(frozen=True)
class Case:
    """One piece of work in both ways.

    Attributes:
        difference: of what ours and torchvision's return: values, or the part of the boxes or pixels that differs.
        device: where the work is done.
        needed: bytes that any way must read or write, each once; 0 where they are not what bounds the speed.
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
        difference: the largest between both results, and what is allowed.
        memory: of `ours` and of `torchvision`; empty where it was not measured.
        needed: bytes, as in `Case`.
        copy: seconds to copy as many in the same run, a round each: what no way can be faster than.
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
        return f"{verdict} (largest difference of a value, or part of the pixels): {values}"

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


def bench_kernels(settings: KernelSettings, protocol: Protocol, track: Track = no_track) -> KernelReport:
    """Compares every kernel in float32 on random input.

    Raises:
        ConfigError: the device does not exist, or bf16, in which torchvision has no kernels.
    """
    if protocol.compile:
        raise ConfigError("kernels are compared as they are: leave out --compile")
    if protocol.precision != "fp32":
        raise ConfigError(f"kernels are compared in fp32: torchvision has none in {protocol.precision}")
    device = open_device(protocol.device)
    results = tuple(
        _compare(name, make, tolerance, settings, protocol, device, track) for name, make, tolerance in CASES
    )
    return KernelReport(settings, environment(device, protocol.precision), results)


def _compare(
    name: str,
    make: Make,
    tolerance: float,
    settings: KernelSettings,
    protocol: Protocol,
    device: torch.device,
    track: Track,
) -> KernelResult:
    case = make(settings, device)
    difference = case.difference(case.ours(), case.theirs())
    times = in_turns(lambda _: case.ours(), lambda _: case.theirs(), protocol, case.device, track)
    memory = {}
    if protocol.memory:
        ours, theirs = (partial(_alone, make, settings, device, side) for side in ("ours", "theirs"))
        memory = compare_memory(ours, theirs, case.device)
    copy = copy_times(case.needed, protocol, case.device) if case.needed else ()
    return KernelResult(name, times, difference, tolerance, memory, case.needed, copy)


def roi_align_case(settings: KernelSettings, device: torch.device, *, backward: bool = False) -> Case:
    """7x7 bins of two samples an axis on one map; with `backward` the gradient of the map too. What goes in is
    channels-last as our network keeps it, and contiguous for torchvision."""
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
    """Of the cells that the boxes touch and of the result; with `backward` of the gradients of the result and of the
    map too."""
    index = torch.zeros(len(boxes), dtype=torch.int64, device=boxes.device)
    flat = torch.ones_like(features[:, :1]).requires_grad_()
    pooled = roi_align([flat], boxes, index, index, strides=(STRIDE,), output_size=7)
    touched = int(torch.autograd.grad(pooled.sum(), flat)[0].count_nonzero())
    cells = touched + pooled.numel()
    if backward:
        cells += pooled.numel() + flat.numel()
    return cells * features.shape[1] * features.element_size()


def nms_case(settings: KernelSettings, device: torch.device) -> Case:
    """The RPN's suppression: five levels of boxes, best first, which do not suppress one another. About fifty boxes
    lie around each of the same places, as proposals lie around objects."""
    generator = torch.Generator().manual_seed(0)
    places = random_boxes(1 + settings.boxes // 50, (800, 1088), generator)
    boxes = places[torch.randint(len(places), (LEVELS * settings.boxes,), generator=generator)]
    shift = torch.randn(boxes.shape, generator=generator) * 0.08  # of the side: overlaps on both sides of 0.7
    boxes = (boxes + shift * (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2)).to(device)
    scores = torch.rand(LEVELS, settings.boxes, generator=generator).sort(descending=True)[0].to(device)
    levels = torch.arange(LEVELS, device=device).repeat_interleave(settings.boxes)
    lists, valid = boxes.view(LEVELS, -1, 4), torch.ones_like(scores, dtype=torch.bool)

    def theirs() -> torch.Tensor:
        kept = torchvision.ops.batched_nms(boxes, scores.flatten(), levels, 0.7)
        return torch.zeros_like(valid).flatten().index_fill_(0, kept, True).view_as(valid)

    return Case(lambda: nms(lists, valid, 0.7), theirs, lambda a, b: float((a != b).double().mean()), device)


def masks_case(settings: KernelSettings, device: torch.device) -> Case:
    """28x28 probabilities in boxes of all sizes to run lengths: ours inside the boxes; theirs pasted into images by
    torchvision, a few at a time, thresholded, and encoded by hotcoco. Always on the CPU, where run lengths are made."""
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


# Name, what makes it, and the difference allowed.
CASES: tuple[tuple[str, Make, float], ...] = (
    ("RoIAlign", roi_align_case, 1e-4),
    ("RoIAlign, forward and backward", partial(roi_align_case, backward=True), 1e-4),
    ("NMS of five levels", nms_case, 1e-3),
    ("masks to run lengths", masks_case, 1e-4),
)


def random_boxes(count: int, image_hw: tuple[int, int], generator: torch.Generator) -> torch.Tensor:
    """(N, 4) float32 boxes inside an image, sides drawn log-uniformly from a fiftieth to half of its shorter side."""
    height, width = image_hw
    sides = torch.exp(torch.empty(count, 2).uniform_(np.log(0.02), np.log(0.5), generator=generator)) * min(image_hw)
    corner = torch.rand(count, 2, generator=generator) * (torch.tensor([float(width), float(height)]) - sides)
    return torch.cat([corner, corner + sides], dim=1)


def _alone(make: Make, settings: KernelSettings, device: torch.device, side: str) -> Callable[[], Any]:
    return getattr(make(settings, device), side)
