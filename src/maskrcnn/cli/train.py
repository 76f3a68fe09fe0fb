"""`maskrcnn train`: every setting is a flag, and its default is the preset's."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro
from tyro.constructors import (
    ConstructorRegistry,
    PrimitiveConstructorSpec,
    PrimitiveTypeInfo,
    StructConstructorSpec,
    StructTypeInfo,
)

from maskrcnn.config import Config, Conventions
from maskrcnn.config.presets import preset as preset_config

DEFAULT_PRESET = "mask_rcnn_R_50_FPN"

Flag = tyro.conf.FlagCreatePairsOff[bool]


@dataclass(frozen=True)
class Train:
    """Train a model on COCO JSON. Each setting of the preset is a flag below: --train.steps 500 --image.scale 1.5"""

    data: Path
    """COCO JSON, or a folder that holds one."""
    out: Path
    """Folder for checkpoints, the model file, metrics and curves."""
    val: Path | None = None
    """COCO JSON to evaluate on; without it the last model is the best."""
    preset: str = DEFAULT_PRESET
    """Where the settings start; the flags below change them one by one."""
    weights: str | None = None
    """What to start from: a model file, a checkpoint of another framework, an address, a name of `maskrcnn weights
    list`, or ImageNet weights (a file, or a name in torchvision's list)."""
    resume: Flag = False
    """Go on from the last checkpoint in --out."""
    strict: Flag = False
    """Refuse broken images and annotations instead of skipping them."""
    json: Flag = False
    """Print the summary as one JSON object on stdout."""
    limit: int | None = None
    """Use only the first so many images."""
    argv: tyro.conf.Suppress[tuple[str, ...]] = ()  # as typed, for the command that resumes
    config: Annotated[Config, tyro.conf.arg(name="")] = field(default_factory=Config)

    def run(self) -> int:
        from maskrcnn.cli.output import console, print_json
        from maskrcnn.training.loop import train

        summary = train(
            self.config,
            self.data,
            val=self.val,
            out=self.out,
            weights=self.weights,
            resume=self.resume,
            strict=self.strict,
            limit=self.limit,
        )
        figures = summary.report.to_dict() if summary.report else {}
        if self.json:
            print_json(
                {
                    "model": summary.model,
                    "checkpoint": summary.checkpoint,
                    "steps": summary.steps,
                    "seconds": summary.seconds,
                    "finished": summary.finished,
                    "skipped": summary.skipped,
                    **figures,
                }
            )
        else:
            say = console(stderr=False).print
            if summary.report:
                say(summary.report.line())
            say(f"{summary.steps} steps in {summary.seconds:.0f} s, model {summary.model}")
            if summary.skipped:
                say(f"{len(summary.skipped)} broken entries were left out; maskrcnn data check names them")
        if not summary.finished:
            print(f"interrupted; to go on: {resume_command(self.argv)}", file=sys.stderr)
            return 130
        return 0


def resume_command(argv: Sequence[str]) -> str:
    """The command line to type again, with --resume."""
    return shlex.join(["maskrcnn", "train", *argv, *([] if "--resume" in argv else ["--resume"])])


def preset_name(argv: Sequence[str], default: str = DEFAULT_PRESET) -> str:
    """The value of --preset, read before everything else because it decides the defaults of the other flags."""
    for here, following in zip(argv, [*argv[1:], ""], strict=True):
        if here == "--preset" and following:
            return following
        if here.startswith("--preset="):
            return here.removeprefix("--preset=")
    return default


def parse(argv: Sequence[str]) -> Train:
    """The command with every flag applied to the preset's config.

    Raises:
        ConfigError: an unknown preset.
        SystemExit: 2 for wrong flags and values, 0 after --help.
    """
    name = preset_name(argv)
    return tyro.cli(
        Train,
        prog="maskrcnn train",
        args=argv,
        default=Train(data=tyro.MISSING, out=tyro.MISSING, preset=name, argv=tuple(argv), config=preset_config(name)),
        # `mask_head: MaskHeadConfig | None` gives flags, not a subcommand.
        config=(tyro.conf.AvoidSubcommands,),
        registry=flag_types(),
    )


def flag_types() -> ConstructorRegistry:
    """What tyro does not read by itself: sizes of each pyramid level, `8 16 32 64 128` or `8,12 16,24 ...`. And what it
    should not offer: conventions come with the weights, and have no flags."""
    registry = ConstructorRegistry()

    @registry.struct_rule
    def conventions(info: StructTypeInfo) -> StructConstructorSpec | None:
        if info.type is not Conventions:
            return None
        return StructConstructorSpec(instantiate=lambda: info.default, fields=())

    @registry.primitive_rule
    def levels(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | None:
        if info.type != tuple[tuple[float, ...], ...]:
            return None
        return PrimitiveConstructorSpec(
            nargs="*",
            metavar="LEVEL ... (a size, or several with commas)",
            instance_from_str=lambda args: tuple(tuple(map(float, level.split(","))) for level in args),
            is_instance=lambda value: isinstance(value, tuple),
            str_from_instance=lambda value: [",".join(f"{size:g}" for size in level) for level in value],
        )

    return registry
