"""`maskrcnn presets`: the named configurations and what each costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import tyro

from maskrcnn.cli.flags import Flag, parse_flags
from maskrcnn.config.presets import PRESETS, preset


@dataclass(frozen=True)
class Presets:
    """List the named configurations with parameters, GFLOPs and use.

    GFLOPs are those of one image of 800x1333 pixels; a multiply-add counts as two.
    """

    names: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
    """Only these configurations; default: all."""
    json: Flag = False
    """Print one JSON object on stdout."""

    def run(self) -> int:
        from maskrcnn.cli.output import console, print_json
        from maskrcnn.files.progress import track

        chosen = {name: preset(name) for name in self.names or PRESETS}  # before torch: a wrong name is noticed at once
        from maskrcnn.models.cost import cost

        costs = {name: cost(config) for name, config in track(chosen.items(), "count", len(chosen))}
        texts = {name: " ".join((PRESETS[name].__doc__ or "").split()) for name in chosen}
        if self.json:
            print_json(
                {name: {**costs[name]._asdict(), "flops": costs[name].flops, "use": texts[name]} for name in chosen}
            )
            return 0
        width = max(map(len, chosen))
        lines = [f"{'preset':<{width}}  parameters   GFLOPs"]
        lines += [
            f"{name:<{width}}  {costs[name].parameters / 1e6:8.1f} M  {costs[name].flops / 1e9:7.0f}  {texts[name]}"
            for name in chosen
        ]
        console(stderr=False).print("\n".join(lines))
        return 0


def parse(argv: Sequence[str]) -> Presets:
    command: Presets = parse_flags(Presets, "maskrcnn presets", argv)
    return command
