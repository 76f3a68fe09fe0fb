"""`maskrcnn data merge`: several data sets as one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from maskrcnn.cli.data.writing import TARGET, TargetFlags, write_dataset
from maskrcnn.cli.reading import HintFlags, open_dataset
from maskrcnn.data.hints import NO_HINTS
from maskrcnn.errors import ConfigError


@dataclass(frozen=True)
class Merge:
    """Merge data sets of any formats into one. Classes of one name become one class."""

    data: Annotated[
        tyro.conf.Positional[tuple[Path, ...]],
        tyro.conf.arg(metavar="DATA DATA [DATA ...]", help_behavior_hint="(required)"),
    ]
    """Annotations of any format, or the folders that hold them."""
    out: Path
    """New folder for annotations and images."""
    renamed: Annotated[tuple[str, ...], tyro.conf.arg(name="map")] = ()
    """New names of classes, such as `car=vehicle truck=vehicle`."""
    target: TargetFlags = TARGET
    hints: HintFlags = NO_HINTS

    def run(self) -> int:
        from maskrcnn.cli.output import console
        from maskrcnn.data.convert import check_new_folder
        from maskrcnn.data.editing.merge import doubts, merge

        pairs = [name.partition("=") for name in self.renamed]
        if wrong := [name for name, (old, _, new) in zip(self.renamed, pairs, strict=True) if not old or not new]:
            raise ConfigError(f"--map: expected pairs old=new, found {wrong[0]}")
        olds = [old for old, _, _ in pairs]
        if twice := [old for old in olds if olds.count(old) > 1]:
            raise ConfigError(f"--map: expected one new name for each class, found several for {twice[0]}")
        if len(self.data) < 2:
            raise ConfigError(f"expected two or more data sets to merge, found {len(self.data)}: name the others, too")
        check_new_folder(self.out, *self.data)
        datasets = [open_dataset(path, self.hints) for path in self.data]
        renamed = {old: new for old, _, new in pairs}
        merged = merge(datasets, self.out, renamed)
        for doubt in doubts(datasets, renamed):
            console(stderr=True).print(f"note: {doubt}")
        write_dataset(merged, self.out, self.target)
        return 0
