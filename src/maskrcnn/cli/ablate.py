"""`maskrcnn ablate`: the paper's ablations on one's own data, as one table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from maskrcnn.cli.flags import Flag, Flags
from maskrcnn.cli.settings import Settings, Start, parse_with_settings
from maskrcnn.errors import ConfigError

DEFAULT_PRESET = "mask_rcnn_tiny"


@dataclass(frozen=True)
class Ablate:
    """Repeat the paper's ablations on your data, and compare the differences.

    Trained rows are not trained again, so the same command continues.
    """

    data: tyro.conf.Positional[Path]
    """Annotations of any format to train on, or their folder."""
    val: Path
    """Annotations to evaluate on."""
    out: Path
    """Folder for the runs and ablations.md."""
    settings: Annotated[Settings, Flags]
    tables: tuple[str, ...] = ()
    """Only these tables, by name."""
    seeds: int = 3
    """Runs of each row."""
    start: Annotated[Start, Flags] = field(default_factory=Start)
    json: Flag = False
    """Print the rows as one JSON object on stdout."""
    argv: tyro.conf.Suppress[tuple[str, ...]] = ()

    def run(self) -> int:
        if self.settings.print_config:
            return self.settings.print()
        import json

        from maskrcnn.cli.output import console, print_json
        from maskrcnn.data.formats import read_dataset
        from maskrcnn.evaluation.truth import require_objects
        from maskrcnn.training.ablation import ROWS, TABLES, Runs, markdown, write_tables

        if self.seeds < 1:
            raise ConfigError(f"--seeds must be at least 1, found {self.seeds}")
        unknown = [name for name in self.tables if name not in TABLES]
        if unknown:
            raise ConfigError(f"--tables: there is no table {unknown[0]!r}; there are: {'; '.join(TABLES)}")
        require_objects(read_dataset(self.val))
        chosen = list(self.tables or TABLES)
        say = console(stderr=True).print
        if not self.tables and not any(category.keypoints for category in read_dataset(self.data).categories):
            chosen.remove("keypoints")
            say(f"{self.data} has no keypoints, so the table keypoints is left out")
        runs = Runs(self.settings.config, self.data, self.val, self.out, self.start.file())
        measured = []
        for row in ROWS:
            if row.table in chosen:
                measured.append(runs.measure(row, self.seeds, say))
                write_tables(measured, self.out)
        if self.json:
            print_json({"rows": json.loads((self.out / "ablations.json").read_text(encoding="utf-8"))})
        else:
            console(stderr=False).print(markdown(measured))
            say(f"written: {self.out / 'ablations.md'}, ablations.json, ablations.png")
        return 0


def parse(argv: Sequence[str]) -> Ablate:
    """The command with the file and every flag applied to the preset's settings; raises as `parse_with_settings`."""
    ablate: Ablate = parse_with_settings(Ablate, "maskrcnn ablate", argv, DEFAULT_PRESET, ("data", "val", "out"))
    return ablate
