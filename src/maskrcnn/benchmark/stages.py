"""Times the stages of a prediction: decode, preprocess, backbone, neck, RPN, box head, mask head, postprocess."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from maskrcnn.benchmark.measure import Mark, Sitting, Stopwatch
from maskrcnn.files.images import read_image
from maskrcnn.ops.device import in_precision
from maskrcnn.predict import Predictor, TorchBackend, postprocess, preprocess
from maskrcnn.structures.tensors import to_device

Marks = list[tuple[str, Mark, Mark]]


def parts_of(network: torch.nn.Module) -> list[tuple[str, Any, str]]:
    """Stage, object and name of the methods that `MaskRCNN.detect` calls in sequence; none calls another."""
    net: Any = network
    parts = [
        ("preprocess", net, "normalise"),
        ("backbone", net.backbone, "forward"),
        ("neck", net.neck, "forward"),
        ("RPN head", net.rpn, "forward"),
        ("proposals", net.rpn, "propose"),
        ("box head", net.roi_heads.box, "detect"),  # RoIAlign, layers and NMS
    ]
    if net.roi_heads.mask is not None:
        parts.append(("mask head", net.roi_heads.mask, "detect"))
    if net.roi_heads.keypoint is not None:
        parts.append(("keypoint head", net.roi_heads.keypoint, "detect"))
    return parts


def stage_seconds(predictor: Predictor, batches: Sequence[Sequence[Path]], sitting: Sitting) -> dict[str, list[float]]:
    """Seconds of each stage of predicting a batch of files, one value per round, in the order of the stages.

    An exported network is one stage, `network`. `other` is the time outside all stages, `all` the total. Timing itself
    costs microseconds.
    """
    watch = Stopwatch(predictor.device)
    rounds: list[dict[str, float]] = []
    in_torch = isinstance(predictor.backend, TorchBackend)
    parts = parts_of(predictor.network) if in_torch else []
    detect = predictor.network.detect if in_torch else predictor.backend.detect  # never compiled
    for number in sitting.track(sitting.all_rounds, "stages"):
        files = batches[number % len(batches)]
        marks: Marks = []
        if watch.device.type == "cuda":
            torch.cuda.synchronize(watch.device)
        start = watch.mark()
        with _marked(parts, watch, marks), in_precision(sitting.timing.precision, watch.device):
            images = [read_image(file) for file in files]
            decoded = watch.mark()
            batch = to_device(preprocess(images, predictor.config), watch.device)
            ready = watch.mark()
            detections = detect(batch, predictor.config.model.detect)
            detected = watch.mark()
            if not in_torch:
                marks.append(("network", ready, detected))
            postprocess(detections, batch.frames, predictor.config)
        end = watch.mark()
        marks = [("decode", start, decoded), ("preprocess", decoded, ready), *marks, ("postprocess", detected, end)]
        rounds.append(_sums(marks, watch, watch.seconds(start, end)))
    return {stage: [seconds[stage] for seconds in rounds[sitting.timing.warmup :]] for stage in rounds[0]}


def _sums(marks: Marks, watch: Stopwatch, total: float) -> dict[str, float]:
    sums: dict[str, float] = {}
    for stage, start, end in marks:
        sums[stage] = sums.get(stage, 0.0) + watch.seconds(start, end)
    return sums | {"other": total - float(np.sum(list(sums.values()))), "all": total}


@contextmanager
def _marked(parts: Sequence[tuple[str, Any, str]], watch: Stopwatch, marks: Marks) -> Iterator[None]:
    """Inside the context, every call of the given methods appends its start and end to `marks`."""

    def marking(stage: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            start = watch.mark()
            result = method(*args, **kwargs)
            marks.append((stage, start, watch.mark()))
            return result

        return call

    for stage, owner, name in parts:
        setattr(owner, name, marking(stage, getattr(owner, name)))  # hides the method of the class
    try:
        yield
    finally:
        for _, owner, name in parts:
            delattr(owner, name)
