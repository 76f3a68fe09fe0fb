"""Writes parts on a Ray cluster. Ray Data starts the actors, gives them the parts, and replaces those that are lost."""

from __future__ import annotations

import logging
import os
import pickle
import re
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from importlib.util import find_spec
from threading import Event, Thread
from typing import Any

from maskrcnn.errors import ConfigError, MaskRCNNError, MissingPackageError
from maskrcnn.scale.manifest import Shard
from maskrcnn.scale.parts import PartWriter
from maskrcnn.threads import usable_cores

LOCAL = "local"  # stands for a cluster that is started on this machine, and ends with the command
PATIENCE = 10.0  # seconds in which the head of a cluster must answer
INTERVAL = 5.0  # seconds between two looks at the head during the work
LOST = 30.0  # seconds without an answer after which the head is lost; after 60, Ray ends the process
# A server of gRPC, as the head is one, answers the greeting of HTTP/2 with its settings (RFC 9113, section 3.4).
GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
SETTINGS = b"\x04"  # the kind of a frame, its fourth byte
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
    if not shards:
        return
    share = (len(usable_cores()) - 1) // (workers or 1) if address == LOCAL else 1
    cores = writer.threads or max(1, share)
    writer = replace(writer, threads=cores)
    with _cluster(address, (workers or 1) * cores + 1) as ray:
        total = ray.cluster_resources()
        gpus = total.get("GPU", 0)
        most = workers or max(1, int(gpus or (total.get("CPU", 1) - 1) // cores))
        jobs = ray.data.from_items([{"shard": shard} for shard in shards], override_num_blocks=len(shards))
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
    except (RayError, ConnectionError, RuntimeError, ValueError) as error:
        raise ConfigError(
            f"--ray {address}: the cluster cannot be joined ({' '.join(str(error).split())}); "
            "use its version of Ray, and give its token in RAY_AUTH_TOKEN"
        ) from None
    ended = Event()
    Thread(target=_watch, args=(ray.get_runtime_context().gcs_address, address, ended), daemon=True).start()
    try:
        yield ray
    except RayError as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"--ray {address}: the work is lost ({reason}); repeat the command: parts stay") from None
    finally:
        ended.set()
        with suppress(Exception):
            ray.shutdown()


def _watch(head: str, address: str, ended: Event) -> None:
    """Ends this process with a line when the head of the cluster no longer answers. Ray waits for a head that is begun
    anew, and then ends the process without a word."""
    last = time.monotonic()
    while not ended.wait(INTERVAL):
        with suppress(ConfigError):
            check_cluster(head)
            last = time.monotonic()
        if time.monotonic() - last > LOST:
            print(
                f"error: --ray {address}: the head of the cluster is lost; repeat the command: parts stay",
                file=sys.stderr,
            )
            os._exit(2)


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
        with socket.create_connection((found[1], int(found[2])), PATIENCE) as link:
            if os.environ.get("RAY_USE_TLS") != "1":
                link.sendall(GREETING)
                if link.recv(9)[3:4] != SETTINGS:
                    raise ConnectionError("another kind of server is there")
    except (OSError, OverflowError) as error:
        raise ConfigError(
            f"--ray {address}: no head of a cluster answers there ({error}); start one: ray start --head"
        ) from None
