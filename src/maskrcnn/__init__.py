"""Mask R-CNN: train, evaluate, predict.

The names below are all that other code needs. Each is imported when it is first used, because torch
takes seconds and `maskrcnn --help` must not.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from maskrcnn.config import Config, presets
    from maskrcnn.errors import MaskRCNNError
    from maskrcnn.predict import load
    from maskrcnn.training.evaluate import evaluate
    from maskrcnn.training.loop import train
    from maskrcnn.training.recipes.recipe import Recipe

__version__ = "0.1.0"
__all__ = ["Config", "MaskRCNNError", "Recipe", "__version__", "evaluate", "load", "presets", "train"]

_HOMES = {
    "Config": "maskrcnn.config",
    "MaskRCNNError": "maskrcnn.errors",
    "Recipe": "maskrcnn.training.recipes.recipe",
    "evaluate": "maskrcnn.training.evaluate",
    "load": "maskrcnn.predict",
    "train": "maskrcnn.training.loop",
}


def __getattr__(name: str) -> Any:
    if name == "presets":
        return import_module("maskrcnn.config.presets")
    if name in _HOMES:
        value = getattr(import_module(_HOMES[name]), name)
        globals()[name] = value  # later uses do not call this function
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
