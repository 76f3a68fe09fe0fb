"""Runs the application on a socket, and ends it without losing a request."""

from __future__ import annotations

import asyncio
import logging
import math
import os
import socket
import time
from collections.abc import Iterator
from types import FrameType

import h11
import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from maskrcnn.errors import ConfigError
from maskrcnn.serve.logs import log_as_json
from maskrcnn.serve.settings import Limits

LOG = logging.getLogger("maskrcnn.serve")
BACKLOG = 128  # connections that wait to be accepted
HEADER_SECONDS = 20.0  # for a connection to bring the header of a request, or the rest of a body that was refused
LAST_REQUESTS_SECONDS = 0.3  # between closing the socket and the connections, for requests that are on their way


def listen(host: str, port: int) -> socket.socket:
    """A socket at an address, opened before the model is read, so that a wrong address is noticed at once.

    Raises:
        ConfigError: the host is unknown, or the port is in use or not allowed.
    """
    if not 0 <= port < 1 << 16:
        raise ConfigError(f"--port: expected 0 to {(1 << 16) - 1}, found {port}")
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        return socket.create_server(address[:2], family=family, backlog=BACKLOG)
    except OSError as error:
        number = error.errno or 0
        reason = os.strerror(number) if number > 0 else error  # the numbers of unknown hosts are negative
        raise ConfigError(f"cannot listen at {host}, port {port} ({reason}); choose another --host or --port") from None


def run_app(app: FastAPI, listener: socket.socket, limits: Limits) -> None:
    """Serves until SIGTERM or Ctrl-C. A second signal ends at once.

    Raises:
        MaskRCNNError: the processes of a model have ended and cannot be replaced.
    """
    log_as_json()
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        http=TimedProtocol,
        ws="none",
        lifespan="on",
        loop="asyncio",
        backlog=BACKLOG,
        timeout_graceful_shutdown=math.ceil(limits.drain_timeout),
    )
    host, port = listener.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    precision = {name: engine.crew.precision for name, engine in app.state.service.engines.items()}
    LOG.info("listening", extra={"fields": {"url": f"http://{shown}:{port}", "precision": precision}})
    _DrainingServer(config, app, limits.drain_delay).run(sockets=[listener])
    if app.state.service.failure is not None:
        raise app.state.service.failure


class _DrainingServer(uvicorn.Server):
    """After SIGTERM, `/health/ready` answers 503, and requests are accepted for the delay. Then the socket is closed,
    the accepted requests are answered, and the process ends with 0."""

    def __init__(self, config: uvicorn.Config, app: FastAPI, delay: float) -> None:
        super().__init__(config)
        self.service, self.delay = app.state.service, delay
        self.closes_at = math.inf

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self.force_exit = self.should_exit  # told again while it ends
        self.should_exit = self.service.draining  # told again within the delay
        self.service.draining = True
        self.closes_at = time.monotonic() + self.delay

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        waiting = [connection for listener in sockets or () for connection in _waiting_at(listener)]
        for server in self.servers:
            server.close()
        for connection in waiting:
            await asyncio.get_running_loop().connect_accepted_socket(self._protocol, sock=connection)
        await asyncio.sleep(LAST_REQUESTS_SECONDS)
        await super().shutdown(sockets)

    def _protocol(self) -> TimedProtocol:
        return TimedProtocol(self.config, self.server_state, self.lifespan.state)

    async def on_tick(self, counter: int) -> bool:
        ends = self.service.failure is not None or time.monotonic() >= self.closes_at
        return await super().on_tick(counter) or ends


def _waiting_at(listener: socket.socket) -> Iterator[socket.socket]:
    """The connections that the system has accepted for a socket, which it would reset when the socket is closed."""
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:  # none is left
            return
        connection.setblocking(False)
        yield connection


class TimedProtocol(H11Protocol):
    """Closes connections that bring no request in time, so that slow senders cannot hold all of them."""

    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._restart_timer()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._restart_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        super().connection_lost(exc)

    def _restart_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self.loop.call_later(HEADER_SECONDS, self._close_unless_busy)

    def _close_unless_busy(self) -> None:
        if self.conn.our_state not in (h11.SEND_RESPONSE, h11.SEND_BODY):  # no request, or one that has its answer
            self.transport.close()
