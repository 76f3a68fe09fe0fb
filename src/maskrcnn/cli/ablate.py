"""`maskrcnn ablate`: the paper's ablations on one's own data, as one table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from maskrcnn.cli.train import flag_types, preset_name
from maskrcnn.config import Config
from maskrcnn.config.presets import preset as preset_config
from maskrcnn.errors import ConfigError

DEFAULT_PRESET = "mask_rcnn_tiny"

Flag = tyro.conf.FlagCreatePairsOff[bool]


@dataclass(frozen=True)
class Ablate:
    """Train every row of the paper's ablations several times on one data set and compare the differences with the
    paper's. What is trained already is not trained again: the same command goes on where it was stopped."""

    data: Path
    """COCO JSON to train on, or a folder that holds one."""
    val: Path
    """COCO JSON to evaluate on."""
    out: Path
    """Folder for the runs, and for ablations.md, ablations.json and ablations.png."""
    tables: tuple[str, ...] = ()
    """Only these tables, by their names; default: all that the data allow."""
    seeds: int = 3
    """Runs of each row."""
    preset: str = DEFAULT_PRESET
    """The base that every row changes, a pyramid; the flags below change it first."""
    weights: str | None = None
    """Weights of the backbone to start from, as in maskrcnn train."""
    json: Flag = False
    """Print the rows as one JSON object on stdout."""
    config: Annotated[Config, tyro.conf.arg(name="")] = field(default_factory=Config)

    def run(self) -> int:
        import json

        from maskrcnn.cli.output import console, print_json
        from maskrcnn.data.coco import load_coco
        from maskrcnn.training.ablation import ROWS, TABLES, Runs, markdown, write_tables

        if self.seeds < 1:
            raise ConfigError(f"--seeds must be at least 1, found {self.seeds}")
        unknown = [name for name in self.tables if name not in TABLES]
        if unknown:
            raise ConfigError(f"--tables {unknown[0]!r} is none of the tables: {'; '.join(TABLES)}")
        chosen = list(self.tables or TABLES)
        say = console(stderr=True).print
        if not self.tables and not any(category.keypoints for category in load_coco(self.data).categories):
            chosen.remove("keypoints")
            say(f"{self.data} has no keypoints: that table is left out")
        runs = Runs(self.config, self.data, self.val, self.out, self.weights)
        measured = []
        for row in ROWS:
            if row.table in chosen:
                measured.append(runs.measure(row, self.seeds, say))
                write_tables(measured, self.out)
        if self.json:
            print_json({"rows": json.loads((self.out / "ablations.json").read_text(encoding="utf-8"))})
        else:
            console(stderr=False).print(markdown(measured), markup=False)
            say(f"written: {self.out / 'ablations.md'}, ablations.json, ablations.png")
        return 0


def parse(argv: Sequence[str]) -> Ablate:
    """The command with every flag applied to the preset's config; raises as `cli.train.parse`."""
    name = preset_name(argv, DEFAULT_PRESET)
    blank = tyro.MISSING
    return tyro.cli(
        Ablate,
        prog="maskrcnn ablate",
        args=argv,
        default=Ablate(data=blank, val=blank, out=blank, preset=name, config=preset_config(name)),
        config=(tyro.conf.AvoidSubcommands,),
        registry=flag_types(),
    )
