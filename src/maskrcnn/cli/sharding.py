"""The flags of `predict` for many images, whose results are Parquet files that several processes write."""

from __future__ import annotations

import re
import sys
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

from tyro.constructors import PrimitiveConstructorSpec

from maskrcnn.cli.detectors import with_views_and_tiles
from maskrcnn.cli.flags import Flag, changed_fields
from maskrcnn.errors import ConfigError, MissingPackageError

if TYPE_CHECKING:
    from maskrcnn.cli.predict import Predict
    from maskrcnn.scale.manifest import Task
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
    """For many images: write one Parquet file for every --shard-size images. The same command continues a run that was
    stopped. The next flags ask for it, too."""
    shard_size: int = 200
    """Images in each Parquet file."""
    shard: str | None = None
    """Write only every N-th file, from number I on, as one of N tasks: I/N, from 0/N to N-1/N."""
    workers: int = 1
    """Processes that write files, each with its share of the cores."""
    ray: Address | None = None
    """Let Ray write the files: on the cluster with this address of its head, or on this machine. --workers is the most
    actors."""

    @property
    def wanted(self) -> bool:
        return bool(changed_fields(self))

    def task(self) -> Task:
        """Which files this command writes. Raises ConfigError if `--shard` names no task."""
        from maskrcnn.scale.manifest import Task

        if self.shard is None:
            return Task()
        found = re.fullmatch(r"(\d{1,9})/(\d{1,9})", self.shard, re.ASCII)
        if found is None:
            raise ConfigError(f"--shard: expected I/N such as 0/8, found {self.shard}")
        return Task(int(found[1]), int(found[2]))


def open_detector(command: Predict, threads: int | None) -> Any:
    """The detector of a command, in a process that is not the first one to open it."""
    computing = replace(command.computing, threads=threads)
    model = command.opening.load_silently(command.model, computing)
    return with_views_and_tiles(model, command.tta, command.tiles, command.overlap)


def write_parquet(command: Predict) -> int:
    """Runs `predict` for many images, and returns its exit code."""
    from maskrcnn.cli import fail
    from maskrcnn.cli.output import console, print_json, track

    sharding = command.sharding
    if sharding.workers < 1:
        raise ConfigError(f"--workers: expected 1 process or more, found {sharding.workers}")
    if ":/" in str(command.out):
        raise ConfigError(
            f"--out {command.out}: expected a folder on a disk, found an address; copy the files afterwards"
        )
    try:
        from maskrcnn.scale.inputs import listed_images
        from maskrcnn.scale.manifest import Manifest
        from maskrcnn.scale.parts import Writer
        from maskrcnn.scale.run import in_this_process, write_parts
    except ModuleNotFoundError as error:
        raise MissingPackageError(f"Parquet files need {error.name}: pip install 'maskrcnn[scale]'") from None
    if not 0 <= (command.min_score or 0) <= 1:
        raise ConfigError(f"min score: expected a score from 0 to 1, found {command.min_score}")
    engine = _engine(sharding)
    task, paths = sharding.task(), listed_images(command.images)
    manifest = Manifest(paths, sharding.shard_size, _settings(command))
    # Opened here even if other processes compute, so that a wrong model or flag is noticed before they start.
    model = command.opening.load(command.model, command.computing)
    detector = with_views_and_tiles(model, command.tta, command.tiles, command.overlap)
    writer = Writer(
        command.out,
        manifest.fingerprint,
        (lambda threads: detector) if engine is in_this_process else partial(open_detector, command),
        command.computing.threads,
        command.min_score or 0.0,
        command.batch_size,
        command.strict,
    )
    try:
        summary = write_parts(manifest, writer, task, engine, track=lambda items, total: track(items, "predict", total))
    except KeyboardInterrupt:
        print("interrupted: the files that are finished stay, and the same command continues", file=sys.stderr)
        return 130
    if command.json:
        print_json(asdict(summary))
    else:
        console(stderr=False).print("\n".join(_lines(summary)))
    if summary.images and summary.images == summary.errors:
        return fail(f"none of the {summary.images} images could be read; the column error of the files says why")
    return 0


def _engine(sharding: Sharding) -> Engine:
    """Who writes the files."""
    from maskrcnn.scale.on_ray import on_ray
    from maskrcnn.scale.processes import in_processes
    from maskrcnn.scale.run import in_this_process

    if sharding.ray is not None:
        if not re.fullmatch(rf"auto|{LOCAL}|(ray://)?[^/]+:\d+", sharding.ray):
            raise ConfigError(f"--ray: expected an address such as 10.0.0.1:6379 or none, found {sharding.ray}")
        return partial(
            on_ray, address=sharding.ray, workers=sharding.workers if "--workers" in changed_fields(sharding) else None
        )
    return in_this_process if sharding.workers == 1 else partial(in_processes, workers=sharding.workers)


def _settings(command: Predict) -> dict[str, str]:
    """The flags that change the results. How many images, threads and processes run at once is left out."""
    from maskrcnn.scale.manifest import identity

    opening = command.opening
    given = {
        "--model": identity(command.model),
        "--config": None if opening.config is None else identity(str(opening.config)),
        "--allow-partial": opening.allow_partial,
        "--part": opening.part,
        "--precision": command.computing.precision,
        "--tta": command.tta,
        "--tiles": command.tiles,
        "--overlap": command.overlap,
        "--min-score": command.min_score,
    }
    return {name: str(value) for name, value in given.items()}


def _lines(summary: PartsSummary) -> list[str]:
    """What a person reads of a run."""
    from maskrcnn.cli.output import counted

    if not summary.written + summary.kept:
        return ["nothing to do: there are fewer files than tasks, and none is for this one"]
    lines = [f"{counted(summary.objects, 'object')} in {counted(summary.images, 'image')}: {summary.folder}"]
    lines.append(f"Parquet files: {summary.written} written, {summary.kept} kept")
    if summary.errors:
        lines.append(f"not read: {counted(summary.errors, 'image')}; the column error says why")
    return lines
