"""A run: the parts of one share that are missing are written, and those that are there are kept."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from maskrcnn.files.atomic import check_folder
from maskrcnn.files.lock import locked
from maskrcnn.scale.manifest import Manifest, Shard, Share
from maskrcnn.scale.parts import Content, PartWriter, content_of

# Writes parts with copies of a writer, and yields after each image.
Engine = Callable[[PartWriter, Sequence[Shard]], Iterator[None]]


@dataclass(frozen=True)
class PartsSummary:
    """What the parts of a share hold, and how many of them were written by this run or were there already."""

    images: int
    objects: int
    errors: int
    written: int
    kept: int
    folder: Path


def in_this_process(writer: PartWriter, shards: Sequence[Shard]) -> Iterator[None]:
    """The simplest engine: one part after the other."""
    return chain.from_iterable(map(writer.write, shards))


def write_parts(
    manifest: Manifest,
    writer: PartWriter,
    share: Share,
    engine: Engine = in_this_process,
    track: Callable[[Iterable[Any], int], Iterable[Any]] = lambda items, total: items,
) -> PartsSummary:
    """Writes the parts of a share that are missing, truncated, or not of this run. A run that was killed at any moment
    is continued in this way.

    Args:
        track: wraps the images with their number, for a progress bar.

    Raises:
        ConfigError: no files can be written to the folder, it holds another run, or a store cannot be reached.
        TrainingError: another process is writing the same parts, or worker processes are killed again and again.
        ImageError: with `strict`, the first image that cannot be read.
        OSError: a part cannot be written. All finished parts stay.
    """
    folder = writer.folder
    check_folder(folder)
    # The name begins with "_", because readers of a folder of Parquet files leave out such names.
    with locked(folder, f"_shard-{share.index}-of-{share.count}.lock"):
        manifest.settle(folder)
        kept: dict[int, Content] = {}
        for shard in manifest.shards(share):
            content = content_of(folder / shard.file_name, shard, manifest.fingerprint)
            if isinstance(content, Content):
                kept[shard.number] = content
            elif content is not None:
                print(f"note: {content}", file=sys.stderr)
        missing = [shard for shard in manifest.shards(share) if shard.number not in kept]
        for _ in track(engine(writer, missing), sum(len(shard.paths) for shard in missing)):
            pass
        written = [content_of(folder / shard.file_name, shard, manifest.fingerprint) for shard in missing]
    contents = [*kept.values(), *(content for content in written if isinstance(content, Content))]
    images, objects, errors = (sum(column) for column in zip(*contents, strict=True)) if contents else (0, 0, 0)
    return PartsSummary(images, objects, errors, len(missing), len(kept), folder)
