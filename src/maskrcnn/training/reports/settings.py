"""The settings of a run beside those of the preset that is nearest to them."""

from __future__ import annotations

from typing import Any

from maskrcnn.config import Config, differing_settings
from maskrcnn.config.presets import PRESETS

_OF_DATA = ("categories", "model.num_classes")  # filled from the data set


def nearest_preset(config: Config) -> tuple[str, dict[str, tuple[Any, Any]]]:
    """The preset with the fewest other settings, and these settings by name, each in the preset and in `config`."""
    differing = {name: chosen(differing_settings(make(), config)) for name, make in PRESETS.items()}
    return min(differing.items(), key=lambda item: len(item[1]))


def chosen(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings by name, without those that follow from the data set."""
    return {name: value for name, value in settings.items() if name not in _OF_DATA}
