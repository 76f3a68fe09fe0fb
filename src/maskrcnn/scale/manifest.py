"""The manifest of a run: the sorted list of its images, and the settings that its results depend on.

A folder holds the parts of one run. Its manifest says which one, so that a second run continues it or is refused.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import zip_longest
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from maskrcnn.errors import ConfigError
from maskrcnn.files.atomic import atomic_write

MANIFEST = "_manifest.parquet"  # readers of a folder of Parquet files leave out names that begin with "_"
KEY = b"maskrcnn"  # of our metadata in a Parquet file


def identity(source: str) -> str:
    """What identifies a file, or the files of a folder, by their content. Any other text stands for itself.

    The weights of an OpenVINO model lie beside its XML, which stays the same when only they change.
    """
    path = Path(source)
    files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    if path.suffix == ".xml" and path.with_suffix(".bin").is_file():
        files.append(path.with_suffix(".bin"))
    if not path.exists():
        return source
    digest = hashlib.blake2b(digest_size=16)
    for file in files:
        with file.open("rb") as content:
            digest.update(hashlib.file_digest(content, "blake2b").digest())
    return f"blake2b:{digest.hexdigest()}"


@dataclass(frozen=True)
class Shard:
    """The images of one part."""

    number: int
    paths: tuple[str, ...]

    @property
    def file_name(self) -> str:
        return f"part-{self.number:05d}.parquet"


@dataclass(frozen=True)
class Share:
    """The parts that one of several tasks writes: those whose number is `index` modulo `count`.

    Raises:
        ConfigError: there is no such share.
    """

    index: int = 0
    count: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.index < self.count:
            raise ConfigError(f"--shard: expected I/N with I from 0 to N - 1, found {self.index}/{self.count}")


@dataclass(frozen=True)
class Manifest:
    """What a run is.

    Attributes:
        paths: all images, sorted.
        shard_size: the number of images in a part; the last part may have fewer.
        settings: what else the results depend on, by flag.

    Raises:
        ConfigError: a part would have no image.
    """

    paths: tuple[str, ...]
    shard_size: int
    settings: Mapping[str, str]

    def __post_init__(self) -> None:
        if self.shard_size < 1:
            raise ConfigError(f"--shard-size: expected 1 image or more in a part, found {self.shard_size}")

    @cached_property
    def fingerprint(self) -> str:
        """What identifies the run in its parts, 32 hexadecimal digits."""
        digest = hashlib.blake2b(self._described().encode(), digest_size=16)
        digest.update("\0".join(self.paths).encode())
        return digest.hexdigest()

    def shards(self, share: Share) -> list[Shard]:
        """The parts of a share, with their images."""
        starts = range(0, len(self.paths), self.shard_size)
        every = [Shard(number, self.paths[start : start + self.shard_size]) for number, start in enumerate(starts)]
        return every[share.index :: share.count]

    def settle(self, folder: Path) -> None:
        """Writes the manifest to a folder, or checks that the folder belongs to this run.

        Raises:
            ConfigError: the folder holds the parts of another run.
            OSError: the manifest cannot be written.
        """
        path = folder / MANIFEST
        if not path.exists():
            if next(folder.glob("part-*.parquet"), None) is not None:
                raise ConfigError(f"{folder}: holds parts without {MANIFEST}, of some other run; choose another --out")
            table = pa.table({"path": list(self.paths)}).replace_schema_metadata({KEY: self._described()})
            content = pa.BufferOutputStream()
            pq.write_table(table, content)
            with atomic_write(path) as temporary:
                temporary.write_bytes(content.getvalue())
        difference = self._difference(path)
        if difference:
            raise ConfigError(
                f"{folder}: holds parts of another run, {difference}; choose another --out, or repeat that run"
            )

    def _described(self) -> str:
        return json.dumps({"--shard-size": str(self.shard_size), **self.settings}, sort_keys=True)

    def _difference(self, path: Path) -> str | None:
        """How the run of a manifest file differs from this one; None if it is the same."""
        try:
            table = pq.read_table(path)
            there: dict[str, str] = json.loads((table.schema.metadata or {})[KEY])
            paths: Sequence[str] = table.column("path").to_pylist()
        except (pa.ArrowException, OSError, KeyError, ValueError):
            return f"whose {MANIFEST} cannot be read"
        here: dict[str, str] = json.loads(self._described())
        for name in sorted(there | here):
            if there.get(name) != here.get(name):
                return f"with {name} {there.get(name)} instead of {here.get(name)}"
        for theirs, ours in zip_longest(paths, self.paths):
            if theirs != ours:
                first = min(path for path in (theirs, ours) if path is not None)
                which = "that run has" if first == theirs else "that run lacks"
                return f"with {len(paths)} images instead of {len(self.paths)}: {which} {first}"
        return None
