"""`maskrcnn compare`: training runs side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from maskrcnn.cli.flags import Flag, parse_flags


@dataclass(frozen=True)
class Compare:
    """Put runs of `maskrcnn train` side by side: figures, steps, seconds, and the settings that differ."""

    first: tyro.conf.Positional[Path]
    """Folder of a run."""
    others: tyro.conf.Positional[tuple[Path, ...]]
    """Folders of other runs, one or more."""
    report: Path | None = None
    """Also write a page with curves to this HTML file."""
    json: Flag = False
    """Print one JSON object on stdout."""

    def run(self) -> int:
        from maskrcnn.cli.output import console, print_json, save_page
        from maskrcnn.files.atomic import check_file
        from maskrcnn.training.reports.compare import comparison, comparison_page, differing, doubts, read_runs

        runs = read_runs([self.first, *self.others])
        if self.report is not None:
            check_file(self.report, *(file for run in runs for file in run.folder.iterdir()))
            save_page(self.report, comparison_page(runs))
        if self.json:
            settings = differing(runs)
            print_json(
                {
                    "runs": [
                        {
                            "folder": run.folder,
                            **run.facts(),
                            "settings": {name: values[number] for name, values in settings.items()},
                        }
                        for number, run in enumerate(runs)
                    ],
                    "doubts": doubts(runs),
                }
            )
            return 0
        rows = [("", [run.name for run in runs]), *comparison(runs)]
        widths = [max(len(row[0]) for row in rows), *(max(len(row[1][i]) for row in rows) for i in range(len(runs)))]
        for name, values in rows:
            cells = [f"{value:>{width}}" for value, width in zip(values, widths[1:], strict=True)]
            console(stderr=False).print("  ".join([f"{name:<{widths[0]}}", *cells]))
        for sentence in doubts(runs):
            console(stderr=True).print(sentence)
        return 0


def parse(argv: Sequence[str]) -> Compare:
    command: Compare = parse_flags(Compare, "maskrcnn compare", argv)
    return command
