"""Settings that are chosen one after another. What a person has given stays, and later choices follow from it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from maskrcnn.config import Config, config_to_dict, flat_settings, with_settings
from maskrcnn.files.atomic import atomic_write
from maskrcnn.training.checkpoint import writing

RECIPE = "recipe.json"
GIVEN = "given"


@dataclass(frozen=True)
class Choice:
    """One setting of a recipe.

    Attributes:
        setting: its whole name, such as `train.steps`.
        value: plain JSON type.
        reason: why, in words; `GIVEN` if a person has set it.
    """

    setting: str
    value: Any
    reason: str


class Choices:
    """The settings of a run while they are chosen.

    Attributes:
        config: with all choices up to now.
        rows: the choices up to now.
    """

    def __init__(self, config: Config, given: Mapping[str, Any]) -> None:
        """
        Args:
            config: the settings to begin from.
            given: settings that a person has set, by whole name, which no choice changes.

        Raises:
            ConfigError: a given name or value is wrong.
        """
        self._given = tuple(given)
        self.config = with_settings(config, given)
        self.rows: list[Choice] = []

    def set(self, settings: Mapping[str, Any], reason: str) -> None:
        """Chooses settings together, by whole name. Those of a part that the model lacks are left out.

        Raises:
            ConfigError: a choice and what is given exclude each other.
        """
        present = flat_settings(config_to_dict(self.config))
        known = {name for name in settings if name in present or any(one.startswith(f"{name}.") for one in present)}
        chosen = {name: settings[name] for name in settings if name in known and not self.is_given(name)}
        self.config = with_settings(self.config, chosen)
        now = flat_settings(config_to_dict(self.config))
        for name in settings:
            if name in known:
                value = now.get(name, settings[name])
                self.rows.append(Choice(name, value, reason if name in chosen else GIVEN))

    def is_given(self, name: str) -> bool:
        """Whether a person has set a setting, or a part around or inside of it."""
        return any(name == one or name.startswith(f"{one}.") or one.startswith(f"{name}.") for one in self._given)


def note_choices(path: Path, found: Mapping[str, Any], reason: str) -> None:
    """Adds settings to the choices in a `recipe.json`, in place of earlier ones of the same names.

    Raises:
        TrainingError: the file cannot be written.
    """
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"choices": []}
    kept = [row for row in content["choices"] if row["setting"] not in found]
    content["choices"] = kept + [vars(Choice(name, value, reason)) for name, value in found.items()]
    with writing(path), atomic_write(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1))


def rows_of(choices: Sequence[Choice]) -> list[str]:
    """A table of setting, value and reason, one line each."""
    cells = [("setting", "value", "reason"), *((one.setting, setting_text(one.value), one.reason) for one in choices)]
    widths = [max(len(row[column]) for row in cells) for column in range(2)]
    return [f"{setting:<{widths[0]}}  {value:<{widths[1]}}  {reason}".rstrip() for setting, value, reason in cells]


def setting_text(value: Any) -> str:
    """The value of a setting as a flag takes it: numbers with four digits, and lists without brackets."""
    if isinstance(value, list | tuple):
        return " ".join(
            ",".join(map(setting_text, one)) if isinstance(one, list | tuple) else setting_text(one) for one in value
        )
    return f"{value:.4g}" if isinstance(value, float) else str(value)
