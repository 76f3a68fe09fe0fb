"""Turns the dataclass of a command into its flags, with tyro."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import tyro
from tyro.constructors import (
    ConstructorRegistry,
    PrimitiveConstructorSpec,
    PrimitiveTypeInfo,
    StructConstructorSpec,
    StructFieldSpec,
    StructTypeInfo,
)

from maskrcnn.config.ranges import Positive

Flag = tyro.conf.FlagCreatePairsOff[bool]  # `--json`, without a `--no-json`
Flags = tyro.conf.arg(name="")  # the fields of a dataclass as flags without a prefix

# Flags of all commands that open a file of weights.
ConfigFile = Annotated[
    Path | None,
    tyro.conf.arg(help="Config file of the framework that wrote the weights (not the settings file of `train`)."),
]
AllowPartial = Annotated[
    Flag, tyro.conf.arg(help="Continue if tensors are missing (they become random) or unexpected (they are left out).")
]
Part = Annotated[
    str | None,
    tyro.conf.arg(help="Which weights to take if the file holds several, such as `teacher` or `model_ema`."),
]

Hidden = Callable[[type, StructFieldSpec], bool]


def parse_flags(
    command: Any,
    prog: str,
    argv: Sequence[str],
    *,
    hidden: Hidden = lambda kind, field: False,
    markers: Sequence[Any] = (),
    **options: Any,
) -> Any:
    """An instance of a dataclass, or of the one that `argv` chooses from a union, with the flags in `argv` applied.

    Args:
        hidden: whether a field of a dataclass has no flag and keeps its default.
        markers: markers of `tyro.conf` for all flags.
        options: further arguments of `tyro.cli`.

    Raises:
        SystemExit: 2 for wrong flags and values, 0 after --help.
    """
    return tyro.cli(
        command,
        prog=prog,
        args=argv,
        # `mask_head: MaskHeadConfig | None` gives flags, not a subcommand.
        config=(tyro.conf.AvoidSubcommands, tyro.conf.PositionalMetavarFromFieldName, *markers),
        registry=_registry(hidden),
        **options,
    )


def _registry(hidden: Hidden) -> ConstructorRegistry:
    registry = ConstructorRegistry()
    registry.primitive_rule(_anchor_sizes)
    inside = False

    @registry.struct_rule
    def fields(info: StructTypeInfo) -> StructConstructorSpec | None:
        """What tyro makes of our dataclasses, without the hidden fields and with a plainer help."""
        nonlocal inside
        if inside or not str(getattr(info.type, "__module__", "")).startswith("maskrcnn."):
            return None
        inside = True
        try:
            found = ConstructorRegistry.get_struct_spec(info)
        finally:
            inside = False
        if not isinstance(found, StructConstructorSpec):
            return None
        kept = [field for field in found.fields if not hidden(info.type, field)]
        build = found.instantiate if len(kept) == len(found.fields) else _copy_of(info.default)
        if not info.type.__module__.startswith("maskrcnn.config"):  # there a user may type None
            kept = [_without_none(field) for field in kept]
        return StructConstructorSpec(build, tuple(kept))

    return registry


def _copy_of(default: Any) -> Callable[..., Any]:
    """A constructor that copies `default` with some fields changed, with the docstring of its class for the help."""

    @wraps(type(default))
    def build(**given: Any) -> Any:
        return replace(default, **given)

    return build


def _without_none(field: StructFieldSpec) -> StructFieldSpec:
    """Removes "{None}|" and "(default: None)" from the help of an optional flag."""
    if field.default not in (None, ()) and field.default is not False:
        return field
    given: Any = tyro.conf.DisallowNone
    return replace(field, type=Annotated[given[field.type], tyro.conf.arg(help_behavior_hint="")])  # type: ignore[arg-type]


def _anchor_sizes(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | None:
    """Parses anchor sizes, one (`8 16 32 64 128`) or several (`8,12 16,24 32,48 64,96 128,192`) for each level."""
    if info.type != tuple[tuple[Positive, ...], ...]:
        return None
    return PrimitiveConstructorSpec(
        nargs="*",
        metavar="LEVEL ... (a size, or several with commas)",
        instance_from_str=lambda args: tuple(tuple(map(float, level.split(","))) for level in args),
        is_instance=lambda value: isinstance(value, tuple),
        str_from_instance=lambda value: [",".join(f"{size:g}" for size in level) for level in value],
    )
