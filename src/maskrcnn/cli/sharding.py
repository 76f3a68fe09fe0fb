"""The flags of `predict` for many images, whose results are Parquet files that several processes write."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.constructors import PrimitiveConstructorSpec

from maskrcnn.cli.detectors import Detecting
from maskrcnn.cli.flags import Flag, changed_fields
from maskrcnn.errors import ConfigError, MissingPackageError

if TYPE_CHECKING:
    from maskrcnn.scale.manifest import Share
    from maskrcnn.scale.run import Engine, PartsSummary


LOCAL = "local"
Address = Annotated[
    str,  # LOCAL where the flag has no value
    PrimitiveConstructorSpec(
        nargs="*",
        metavar="[ADDRESS]",
        instance_from_str=lambda args: " ".join(args) or LOCAL,
        is_instance=lambda value: isinstance(value, str),
        str_from_instance=lambda value: [value],
    ),
]


@dataclass(frozen=True)
class Sharding:
    """How the images are divided into Parquet files, and who writes them."""

    parquet: Flag = False
    """For many images: write Parquet files, which the same command continues. So do --workers, --shard and --ray."""
    shard_size: int = 200
    """Images in each Parquet file."""
    shard: str | None = None
    """Write only every N-th file, from number I on, as one of N tasks: I/N, from 0/N to N-1/N."""
    workers: int = 1
    """Processes that write files, each with its share of the cores."""
    ray: Address | None = None
    """Let Ray write them, on the cluster with this address or on this machine. --workers is the most actors."""

    @property
    def wanted(self) -> bool:
        return bool(changed_fields(self))

    def share(self) -> Share:
        """Which files this command writes. Raises ConfigError if `--shard` names no share."""
        from maskrcnn.scale.manifest import Share

        if self.shard is None:
            return Share()
        found = re.fullmatch(r"(\d{1,9})/(\d{1,9})", self.shard, re.ASCII)
        if found is None:
            raise ConfigError(f"--shard: expected I/N, from 0/8 to 7/8 for 8 tasks, found {self.shard}")
        return Share(int(found[1]), int(found[2]))

    def write(
        self,
        images: Sequence[str],
        detecting: Detecting,
        out: Path,
        *,
        min_score: float | None,
        batch_size: int,
        strict: bool,
    ) -> PartsSummary:
        """Writes the objects of many images as Parquet files.

        Raises:
            ConfigError: flags have a value that cannot be used.
            MissingPackageError: the extra `scale` is not installed.
            Exception: as for `listed_images` and `write_parts`.
        """
        from maskrcnn.files.atomic import check_folder
        from maskrcnn.files.progress import track

        check_folder(out)
        if not 0 <= (min_score or 0) <= 1:
            raise ConfigError(f"min score: expected a score from 0 to 1, found {min_score}")
        try:
            from maskrcnn.scale.inputs import listed_images
            from maskrcnn.scale.manifest import Manifest
            from maskrcnn.scale.parts import PartWriter
            from maskrcnn.scale.run import in_this_process, write_parts
        except ModuleNotFoundError as error:
            raise MissingPackageError(f"Parquet files need {error.name}: pip install 'maskrcnn[scale]'") from None
        engine, share = self.engine(), self.share()
        settings = {**_settings(detecting), "--min-score": str(min_score)}
        manifest = Manifest(listed_images(images), self.shard_size, settings)
        # Opened here even if other processes compute, so that a wrong model or flag is noticed before they start.
        detector = detecting.open()
        writer = PartWriter(
            out,
            manifest.fingerprint,
            (lambda threads: detector) if engine is in_this_process else detecting.open_again,
            detecting.computing.threads,
            min_score or 0.0,
            batch_size,
            strict,
        )
        return write_parts(manifest, writer, share, engine, track=lambda items, total: track(items, "predict", total))

    def engine(self) -> Engine:
        """Who writes the files. Raises ConfigError for a number of workers or an address that cannot be."""
        from maskrcnn.scale.on_ray import check_cluster, on_ray
        from maskrcnn.scale.processes import in_processes
        from maskrcnn.scale.run import in_this_process

        if self.workers < 1:
            raise ConfigError(f"--workers: expected 1 process or more, found {self.workers}")
        if self.ray is None:
            return in_this_process if self.workers == 1 else partial(in_processes, workers=self.workers)
        if not re.fullmatch(rf"auto|{LOCAL}|(ray://)?[^/]+:\d+", self.ray):
            raise ConfigError(f"--ray: expected an address such as 10.0.0.1:6379 or none, found {self.ray}")
        check_cluster(self.ray)
        return partial(on_ray, address=self.ray, workers=self.workers if "--workers" in changed_fields(self) else None)


def _settings(detecting: Detecting) -> dict[str, str]:
    """The flags that change the results, without those that say how many images, threads and processes run at once."""
    from maskrcnn.scale.manifest import identity

    opening = detecting.opening
    given = {
        "--model": identity(detecting.model),
        "--config": None if opening.config is None else identity(str(opening.config)),
        "--allow-partial": opening.allow_partial,
        "--part": opening.part,
        "--precision": detecting.computing.precision,
        "--tta": detecting.tta,
        "--tiles": detecting.tiles,
        "--overlap": detecting.overlap,
    }
    return {name: str(value) for name, value in given.items()}
