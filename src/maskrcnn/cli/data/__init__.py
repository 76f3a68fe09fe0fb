"""`maskrcnn data`: one small file for each subcommand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import tyro

from maskrcnn.cli.data.check import Check
from maskrcnn.cli.data.convert import Rewrite
from maskrcnn.cli.data.show import Show
from maskrcnn.cli.flags import parse_flags

Command = (
    Annotated[Check, tyro.conf.subcommand("check", prefix_name=False)]
    | Annotated[Show, tyro.conf.subcommand("show", prefix_name=False)]
    | Annotated[Rewrite, tyro.conf.subcommand("convert", prefix_name=False)]
)


def parse(argv: Sequence[str]) -> Check | Show | Rewrite:
    command: Check | Show | Rewrite = parse_flags(Command, "maskrcnn data", argv)
    return command
