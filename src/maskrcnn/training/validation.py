"""What an evaluation says about a run: its figures by name, the losses on the validation data, and which is best."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch

from maskrcnn.config import Config
from maskrcnn.data.loading.loader import validation_batches
from maskrcnn.errors import ConfigError
from maskrcnn.evaluation.coco import Report, evaluate_results
from maskrcnn.models.losses import mean_losses
from maskrcnn.models.mask_rcnn import MaskRCNN
from maskrcnn.ops.device import in_precision
from maskrcnn.structures.dataset import Dataset
from maskrcnn.structures.tensors import to_device
from maskrcnn.training.step import joint_divisors

DEFAULT = "AP"  # the first defined AP of masks, keypoints and boxes
_AREA = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
_KEYPOINTS = ("AP", "AP50", "AP75", "APm", "APl", "AR", "AR50", "AR75", "ARm", "ARl")


def require_validation(config: Config, validation: Dataset | None) -> None:
    """Checks the settings that judge a run.

    Raises:
        ConfigError: they need validation data and there are none, or no figure has the name of the best metric.
    """
    settings = config.train
    needing = {
        "patience": settings.patience > 0,
        "validation_losses": settings.validation_losses,
        "best_metric": settings.best_metric != DEFAULT,
    }
    idle = next((name for name, given in needing.items() if given), None)
    if validation is None and idle is not None:
        raise ConfigError(f"train.{idle} judges by validation data: give --val, or leave it at its default")
    names = _names(config)
    if settings.best_metric not in names:
        listed = ", ".join(names[:12])
        raise ConfigError(
            f"train.best_metric: expected the name of a figure, such as {listed}, found {settings.best_metric!r}"
            + ("" if settings.validation_losses else "; losses need train.validation_losses")
        )


def _names(config: Config) -> list[str]:
    model = config.model
    kinds: dict[str, tuple[str, ...]] = {"masks": _AREA} if model.mask_head is not None else {}
    kinds |= {"boxes": _AREA} | ({"keypoints": _KEYPOINTS} if model.keypoint_head is not None else {})
    names = [DEFAULT, *(f"{kind}.{figure}" for kind, figures in kinds.items() for figure in figures)]
    losses = ["loss", "loss_rpn_class", "loss_rpn_box", "loss_class", "loss_box"]
    if model.mask_head is not None:
        losses += ["loss_mask", *(["loss_mask_point"] if model.mask_head.point_rend else [])]
    losses += ["loss_keypoint"] if model.keypoint_head is not None else []
    names += losses if config.train.validation_losses else []
    return names + [f"{kind}.AP.{category.name}" for kind in kinds for category in config.categories]


def metrics_of(report: Report, losses: dict[str, float]) -> dict[str, float | None]:
    """All figures of an evaluation by name: `AP`, `masks.AP50`, `boxes.AP.person`, and the losses.

    A loss that is not finite, as it may come from fp16, is None like an undefined figure.
    """
    figures = {f"{kind}.{name}": value for kind, part in report.figures.items() for name, value in part.items()}
    of_classes = {f"{kind}.AP.{name}": ap for name, aps in report.per_class.items() for kind, ap in aps.items()}
    finite = {name: loss if math.isfinite(loss) else None for name, loss in losses.items()}
    return {DEFAULT: report.score, **figures, **of_classes, **finite}


def is_better(name: str, value: float | None, best: float | None) -> bool:
    """Whether a figure beats the best one so far. Losses are better if they are lower. None is an undefined figure."""
    if value is None or best is None:
        return best is None
    return value < best if name.startswith("loss") else value > best


def joint_report(
    validation: Dataset, parts: Sequence[tuple[list[dict[str, Any]], list[int | str]]], max_detections: int
) -> Report:
    """The figures of the results of all processes.

    Args:
        parts: of each process the COCO results, and the ids of the images that it could read.
    """
    results = [entry for entries, _ in parts for entry in entries]
    numbers = [number for _, own in parts for number in own]
    return evaluate_results(validation, results, max_detections=max_detections, image_ids=numbers, analysis=True)


@torch.no_grad()
def validation_losses(
    network: MaskRCNN, dataset: Dataset, config: Config, track: Callable[[Iterable[Any], int], Iterable[Any]]
) -> dict[str, float]:
    """The losses on all images of a data set, without augmentation, each divided by what is counted in all of them.

    Args:
        network: in evaluation mode.
        track: wraps the batches with their number, for a progress bar.
    """
    device = network.pixel_mean.device
    size = config.train.batch_size
    parts = []
    for number, batch in enumerate(track(validation_batches(dataset, config), -(-len(dataset) // size))):
        torch.manual_seed(number)
        moved = to_device(batch, device)
        with in_precision(config.train.precision, device):
            parts.append(network.loss_sums(moved.images, moved.targets))
    divisors = joint_divisors(parts)
    means = [mean_losses(part, divisors) for part in parts]
    losses = {name: float(sum(mean[name] for mean in means)) for name in divisors}
    return {**losses, "loss": sum(losses.values())}
