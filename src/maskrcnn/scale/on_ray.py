"""Writes parts on a Ray cluster. Ray Data starts the actors, gives them the parts, and replaces those that are lost."""

from __future__ import annotations

import logging
import os
import pickle
import re
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from importlib.util import find_spec
from typing import Any

from maskrcnn.errors import ConfigError, MaskRCNNError, MissingPackageError
from maskrcnn.ops.device import usable_cores
from maskrcnn.scale.manifest import Shard
from maskrcnn.scale.parts import PartWriter

LOCAL = "local"  # stands for a cluster that is started on this machine, and ends with the command
PATIENCE = 10.0  # seconds in which the head of a cluster must answer
OBJECT_STORE = 100 << 20  # bytes of a local cluster; it holds only the names of files


def on_ray(writer: PartWriter, shards: Sequence[Shard], address: str, workers: int | None) -> Iterator[None]:
    """Writes parts with up to `workers` actors of a cluster, and yields after each image.

    One core stays free, because Ray Data waits forever if its actors hold all of them (ray#44687).

    Args:
        address: that of the head, as `ray.init` takes it, or `LOCAL`.
        workers: default: as many as the cores of the cluster allow.

    Raises:
        ConfigError: no cluster answers, or it is lost.
        Exception: what `PartWriter.write` raises in an actor.
    """
    if writer.threads is None and address == LOCAL:
        writer = replace(writer, threads=max(1, (usable_cores() - 1) // (workers or 1)))
    cores = writer.threads or 1
    with _cluster(address, (workers or 1) * cores + 1) as ray:
        total = ray.cluster_resources()
        gpus = total.get("GPU", 0)
        most = workers or max(1, int(gpus or (total.get("CPU", 1) - 1) // cores))
        jobs = ray.data.from_items([{"shard": shard} for shard in shards], override_num_blocks=max(1, len(shards)))
        done = jobs.map_batches(
            Actor,
            fn_args=(writer, os.getcwd()),
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(min_size=1, max_size=most),
            num_cpus=cores,
            num_gpus=1 if gpus else None,
        )
        for batch in done.iter_batches(batch_size=None):
            for images, error in zip(batch["images"], batch["error"], strict=True):
                if error:
                    raise pickle.loads(error)
                yield from (None for _ in range(images))


class Actor:
    """Writes parts in a process of the cluster, whose machine sees the same files."""

    writer: PartWriter | None = None

    def __call__(self, batch: dict[str, Any], writer: PartWriter, folder: str) -> dict[str, list[Any]]:
        self.writer = self.writer or writer  # the first one, which keeps its model
        shards: list[Shard] = list(batch["shard"])
        try:
            os.chdir(folder)  # relative paths start where the command was given
            images = [sum(1 for _ in self.writer.write(shard)) for shard in shards]
            return {"images": images, "error": [b""] * len(shards)}
        except (MaskRCNNError, OSError) as error:  # returned, because Ray would wrap it
            return {"images": [0], "error": [pickle.dumps(error)]}


@contextmanager
def _cluster(address: str, cores: int) -> Iterator[Any]:
    """The module `ray`, connected to a cluster or, without an address, to a new one on this machine."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would report to its makers
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # it warns of how Ray Data itself starts actors
    import ray
    import ray.data
    from ray.exceptions import RayError

    new: dict[str, Any] = {"num_cpus": cores, "object_store_memory": OBJECT_STORE, "include_dashboard": False}
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    ray.data.DataContext.get_current().enable_progress_bars = False
    try:
        ray.init(address, log_to_driver=False, logging_level=logging.ERROR, **(new if address == LOCAL else {}))
        yield ray
    except (RayError, ConnectionError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"--ray {address}: the cluster is lost ({reason}); repeat the command: parts stay") from None
    finally:
        with suppress(Exception):
            ray.shutdown()


def check_cluster(address: str) -> None:
    """Asks before the work whether a cluster answers at an address, for which Ray itself would wait much longer.

    Raises:
        ConfigError: nothing answers there.
        MissingPackageError: Ray is missing.
    """
    if find_spec("ray") is None:
        raise MissingPackageError("--ray needs ray: pip install 'maskrcnn[scale]'")
    found = re.fullmatch(r"(?:ray://)?\[?([^\[\]/]+?)\]?:(\d{1,5})", address)
    if found is None:
        return
    try:
        socket.create_connection((found[1], int(found[2])), PATIENCE).close()
    except (OSError, OverflowError) as error:
        raise ConfigError(
            f"--ray {address}: no head of a cluster answers there ({error}); start one: ray start --head"
        ) from None
