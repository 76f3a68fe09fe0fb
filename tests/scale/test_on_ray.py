from __future__ import annotations

import errno
import pickle
import socket
import threading
from contextlib import ExitStack, contextmanager, suppress

import pytest

from maskrcnn.errors import ConfigError, ImageError, MissingPackageError
from maskrcnn.scale import on_ray
from maskrcnn.scale.manifest import Shard


@contextmanager
def head(answer):
    """The address of a server that answers each connection with some bytes, and then says no more."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve():
            with suppress(OSError), ExitStack() as links:
                while True:
                    links.enter_context(server.accept()[0]).sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)
        thread.join()


def test_a_cluster_is_asked_before_the_work(monkeypatch):
    with head(bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))) as address:
        on_ray.check_cluster(address)
        on_ray.check_cluster(f"ray://{address}")
    for gone in (address, f"ray://{address}", "127.0.0.1:99999"):
        with pytest.raises(ConfigError, match="no head of a cluster answers there"):
            on_ray.check_cluster(gone)
    monkeypatch.setattr(on_ray, "PATIENCE", 0.05)
    for answer, reason in ((b"", "timed out"), (b"HTTP/1.1 400 Bad Request", "another kind of server is there")):
        with head(answer) as other, pytest.raises(ConfigError, match=reason):
            on_ray.check_cluster(other)
    on_ray.check_cluster("auto")  # Ray finds the cluster of this machine itself
    monkeypatch.setattr(on_ray, "find_spec", lambda name: None)
    with pytest.raises(MissingPackageError, match="--ray needs ray"):
        on_ray.check_cluster("auto")


class Failing:
    def __init__(self, error):
        self.error = error

    def write(self, shard):
        yield from shard.paths
        if self.error is not None:
            raise self.error


def test_an_actor_answers_with_its_images_or_its_error(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    batch = {"shard": [Shard(0, ("a.png", "b.png"))]}
    assert on_ray.Actor()(batch, Failing(None), str(tmp_path)) == {"images": [2], "error": [b""]}
    for error in (OSError(errno.ENOSPC, "No space left on device"), ImageError("a.png: expected an image")):
        answer = on_ray.Actor()(batch, Failing(error), str(tmp_path))
        told = pickle.loads(answer["error"][0])
        assert (type(told), str(told), answer["images"]) == (type(error), str(error), [0])
    with pytest.raises(ZeroDivisionError):  # a bug keeps its traceback
        on_ray.Actor()(batch, Failing(ZeroDivisionError()), str(tmp_path))
    first = Failing(None)
    actor = on_ray.Actor()
    actor(batch, first, str(tmp_path))
    actor(batch, Failing(None), str(tmp_path))
    assert actor.writer is first  # which keeps its model


def test_nothing_is_started_for_nothing():
    assert list(on_ray.on_ray(Failing(None), [], "local", None)) == []
