"""`maskrcnn data`: one small file for each subcommand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import tyro

from maskrcnn.cli.data.check import Check
from maskrcnn.cli.data.convert import Rewrite
from maskrcnn.cli.data.merge import Merge
from maskrcnn.cli.data.show import Show
from maskrcnn.cli.data.split import Split
from maskrcnn.cli.data.subset import Subset
from maskrcnn.cli.flags import parse_flags

Command = (
    Annotated[Check, tyro.conf.subcommand("check", prefix_name=False)]
    | Annotated[Show, tyro.conf.subcommand("show", prefix_name=False)]
    | Annotated[Rewrite, tyro.conf.subcommand("convert", prefix_name=False)]
    | Annotated[Split, tyro.conf.subcommand("split", prefix_name=False)]
    | Annotated[Merge, tyro.conf.subcommand("merge", prefix_name=False)]
    | Annotated[Subset, tyro.conf.subcommand("subset", prefix_name=False)]
)


def parse(argv: Sequence[str]) -> Check | Show | Rewrite | Split | Merge | Subset:
    command: Check | Show | Rewrite | Split | Merge | Subset = parse_flags(Command, "maskrcnn data", argv)
    return command
