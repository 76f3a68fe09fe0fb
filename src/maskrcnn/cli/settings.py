"""The settings of a run: a preset, which a file and then flags change."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro
from tyro.constructors import StructFieldSpec

from maskrcnn.cli.flags import (
    AllowPartial,
    ConfigFile,
    Flag,
    Flags,
    HelpAll,
    Part,
    asks_short_help,
    changed_fields,
    parse_flags,
)
from maskrcnn.config import (
    AugmentConfig,
    Config,
    ImageConfig,
    TrainConfig,
    config_to_dict,
    flat_settings,
    with_settings,
)
from maskrcnn.config.presets import preset
from maskrcnn.errors import ConfigError

if TYPE_CHECKING:
    from maskrcnn.weights.initialise import WeightsFile

# Parts of the config without flags. Conventions come from a model or a file; categories come from the data.
NO_FLAGS = ("conventions", "categories")


@dataclass(frozen=True)
class Settings:
    """Flags that choose where the settings come from, and a flag for each setting."""

    preset: str
    """Settings to start from; maskrcnn presets lists them."""
    file: Annotated[Path | None, tyro.conf.arg(name="config")] = None
    """YAML file that changes the preset; flags change both."""
    print_config: Flag = False
    """Print the settings as YAML for --config and exit."""
    help_all: HelpAll = False
    config: Annotated[Config, Flags] = field(default_factory=Config)

    def print(self) -> int:
        """Writes the preset's name and the settings to stdout, in the form that `--config` reads."""
        import yaml

        class Dumper(yaml.SafeDumper):
            def represent_mapping(self, tag: str, mapping: Any, flow_style: bool | None = None) -> yaml.MappingNode:
                return super().represent_mapping(tag, mapping, flow_style=False)  # a line for each setting

        values = {"preset": self.preset, **config_to_dict(self.config)}
        del values["categories"]
        sys.stdout.write(yaml.dump(values, Dumper=Dumper, sort_keys=False, default_flow_style=None, width=120))
        return 0


@dataclass(frozen=True)
class Start:
    """Flags that choose the weights from which training starts."""

    weights: str | None = None
    """Model or checkpoint to start from: a file, a URL, a name in `maskrcnn weights list`, resnet50, or none."""
    weights_config: ConfigFile = None
    allow_partial: AllowPartial = False
    part: Part = None

    def file(self) -> WeightsFile | None:
        """The weights with the flags that say how to open them.

        Raises:
            ConfigError: there are such flags, and no weights.
        """
        if self.weights is not None:
            from maskrcnn.weights.initialise import WeightsFile

            return WeightsFile(self.weights, self.weights_config, self.allow_partial, self.part)
        idle = changed_fields(self)
        if idle:
            raise ConfigError(f"expected --weights with {', '.join(idle)}, found none")
        return None


# Flags of commands that only --help-all shows.
LONG_HELP_ONLY = ("resume_with_changes", "reporters", "hold_out", "val_images", "limit", "strict")
# What --help shows of these, and nothing of how to read data; --help-all shows every flag.
SHORT_HELP: dict[type, tuple[str, ...]] = {
    Start: ("weights",),
    ImageConfig: ("short_side", "long_side"),
    AugmentConfig: ("scale_jitter", "crop", "flip_horizontal"),
    TrainConfig: (
        *("steps", "batch_size", "optimizer", "learning_rate", "precision"),
        *("evaluate_every", "checkpoint_every", "workers", "seed"),
    ),
}


def parse_with_settings(
    command: Any, prog: str, argv: Sequence[str], default_preset: str, required: Sequence[str]
) -> Any:
    """Parses a command with the fields `settings: Settings`, `argv`, `data` in front, and others in `required`.

    The data may also be given as `--data DATA`, as `evaluate` and `predict` name them.

    Raises:
        ConfigError: wrong flags or values, an unknown preset, or a file of settings that cannot be used.
        SystemExit: as for `parse_flags`.
    """
    args = _data_first(argv)
    name, config = base_settings(args, default_preset)
    short = asks_short_help(args)
    blank: Any = Path() if "--print-config" in args else tyro.MISSING
    return parse_flags(
        command,
        prog,
        args,
        hidden=lambda kind, setting: _hidden(kind, setting, short),
        markers=[tyro.conf.DisallowNone] if short else [],
        default=command(**dict.fromkeys(required, blank), settings=Settings(name, config=config), argv=tuple(args)),
    )


def _data_first(argv: Sequence[str]) -> list[str]:
    """The arguments with DATA in front in place of `--data DATA`."""
    data = flag_value(argv, "--data")
    if data is None:
        return list(argv)
    place = next(number for number, arg in enumerate(argv) if arg.partition("=")[0] == "--data")
    return [data, *argv[:place], *argv[place + (2 if argv[place] == "--data" else 1) :]]


def base_settings(argv: Sequence[str], default_preset: str) -> tuple[str, Config]:
    """The name of the preset, and its settings changed by the file. They are the defaults of the other flags.

    Raises:
        ConfigError: an unknown preset, or a file of settings that cannot be used.
    """
    path = flag_value(argv, "--config")
    given = {} if path is None else settings_file(path)
    name = flag_value(argv, "--preset") or str(given.get("preset", default_preset))
    base = preset(name)
    try:
        return name, with_settings(base, {key: value for key, value in given.items() if key != "preset"})
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def given_settings(argv: Sequence[str], config: Config, base: Config) -> dict[str, Any]:
    """The settings that the file of `--config` and flags give, by whole name, with their values in `config`.

    Args:
        config: the settings with the file and all flags applied.
        base: the settings without them.
    """
    path = flag_value(argv, "--config")
    values, before = (flat_settings(config_to_dict(one)) for one in (config, base))
    flags = [arg[2:].partition("=")[0].replace("-", "_") for arg in argv if arg.startswith("--") and "." in arg]
    names = [*flat_settings({} if path is None else settings_file(path)), *flags]
    names += [flag.replace(".no_", ".") for flag in flags]
    names += [name for name in values if name not in before]  # of parts that the file adds with their defaults
    return {name: values[name] for name in names if name in values}


def settings_file(path: str) -> dict[str, Any]:
    """The settings in a YAML file by name. An empty file gives none."""
    from maskrcnn.files.plain_yaml import read_yaml

    given = read_yaml(path)
    if given is not None and not isinstance(given, dict):
        raise ConfigError(f"{path}: expected settings by name (train: ...), found {type(given).__name__}")
    return given or {}


def flag_value(argv: Sequence[str], flag: str) -> str | None:
    """The value of a flag, `--flag value` or `--flag=value`; None without the flag."""
    for index, arg in enumerate(argv):
        if arg == flag:
            return argv[index + 1] if index + 1 < len(argv) else None
        if arg.startswith(f"{flag}="):
            return arg.removeprefix(f"{flag}=")
    return None


def _hidden(kind: type, setting: StructFieldSpec, short: bool) -> bool:
    """Whether a field has no flag, or none in the short help."""
    if kind is Config:
        return setting.name in NO_FLAGS
    has_many = kind in SHORT_HELP or kind.__module__.startswith(("maskrcnn.config.", "maskrcnn.data.hints"))
    if short and setting.name in LONG_HELP_ONLY:
        return True
    return short and has_many and not is_dataclass(setting.default) and setting.name not in SHORT_HELP.get(kind, ())
