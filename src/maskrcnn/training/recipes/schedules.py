"""The published schedules. Steps and rate follow the number of images in a step."""

from __future__ import annotations

from maskrcnn.training.recipes.choices import Choices
from maskrcnn.training.recipes.hardware import Hardware
from maskrcnn.training.recipes.rates import learning_rate_for

# Steps of 16 images, and those after which the rate falls (Detectron2's model zoo).
DETECTRON = {"1x": (90_000, (60_000, 80_000)), "3x": (270_000, (210_000, 250_000))}
# Epochs of large-scale jitter from random weights, with the same schedule in each (Detectron2's new baselines).
LARGE_SCALE_JITTER = {"lsj-100": 100, "lsj-200": 200, "lsj-400": 400}
_EPOCHS_STEPS, _EPOCHS_DROPS = 184_375, (163_889, 177_546)


def choose_detectron(choices: Choices, name: str, images: int, machine: Hardware) -> None:
    """The schedule 1x or 3x: 12 or 37 epochs of COCO, whatever the data set.

    Args:
        images: of the training data.

    Raises:
        ConfigError: a choice and what is given exclude each other.
    """
    steps, drops = DETECTRON[name]
    choices.set({"image.short_side": 800, "image.long_side": 1333}, "the paper's")
    choices.set({"augment.scale_jitter": (0.8, 1.0)}, "short sides of 640 to 800 pixels")
    choices.set({"model.backbone.frozen_stages": 2}, "stem and res2")
    _sgd(choices, machine, (0.02, 16), images, 800 * 1100.0)
    choices.set({"train.weight_decay": 1e-4}, "published with the schedule")
    size = choices.config.train.images_per_step * machine.processes
    rescaled = f"x 16 / {size} images"
    choices.set({"train.steps": max(1, round(steps * 16 / size))}, f"{steps} {rescaled}")
    choices.set({"train.drops": [drop / steps for drop in drops]}, f"after {drops[0]} and {drops[1]} {rescaled}")
    choices.set({"train.warmup_steps": round(1000 * 16 / size)}, f"1000 {rescaled}")
    choices.set({"train.evaluate_every": max(1, round(5000 * 16 / size))}, f"5000 {rescaled}")


def choose_large_scale_jitter(choices: Choices, name: str, images: int, machine: Hardware) -> None:
    """Large-scale jitter from random weights; arguments and errors are those of `choose_detectron`."""
    epochs = LARGE_SCALE_JITTER[name]
    norm = "batch_norm" if machine.processes == 1 else "sync_batch_norm" if machine.has_gpu else "group_norm"
    parts = ("model.backbone.norm", "model.fpn_norm", "model.box_head.norm", "model.mask_head.norm")
    choices.set({"model.box_head.convs": 4, "model.box_head.layers": 1, "model.rpn.convs": 2}, "deeper heads")
    choices.set(dict.fromkeys(parts, norm), "batch norm of all processes together")
    choices.set({"model.backbone.frozen_stages": 0}, "random weights: everything is trained")
    choices.set({"image.short_side": 1024, "image.long_side": 1024}, "the long side has 1024 pixels")
    choices.set({"augment.scale_jitter": (0.1, 2.0), "augment.crop": (1024, 1024)}, "large-scale jitter")
    _sgd(choices, machine, (0.1, 64), images, 1024.0**2)
    choices.set({"train.weight_decay": 4e-5}, "published with the schedule")
    size = choices.config.train.images_per_step * machine.processes
    choices.set({"train.steps": max(1, round(epochs * images / size))}, f"{epochs} epochs of {images} images")
    choices.set({"train.drops": [drop / _EPOCHS_STEPS for drop in _EPOCHS_DROPS]}, "after 0.89 and 0.96 of the steps")
    choices.set({"train.warmup_steps": round(500 * 64 / size)}, f"500 x 64 / {size} images")
    choices.set({"train.evaluate_every": max(1, choices.config.train.steps // 20)}, "20 evaluations")


def _sgd(choices: Choices, machine: Hardware, published: tuple[float, int], images: int, pixels: float) -> None:
    """SGD with the published rate for the published images of a step, changed in proportion to the batch that fits."""
    batch = machine.batch(pixels, max(1, min(published[1], images) // machine.processes))
    choices.set({"train.batch_size": batch}, f"{published[1]} in all processes, or as many as fit {machine.name}")
    choices.set({"train.optimizer": "sgd", "train.schedule": "step"}, "published with the schedule")
    rate, reason = learning_rate_for(choices.config, machine.processes, published)
    choices.set({"train.learning_rate": rate}, reason)
