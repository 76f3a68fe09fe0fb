"""Downloads from a real server on this machine: broken, slow, wrong, twice at once, and never again."""

from __future__ import annotations

import hashlib
import http.server
import os
import pty
import random
import re
import resource
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from maskrcnn.errors import WeightsError
from maskrcnn.files.fetch import cache_folder, fetch, sendable

CONTENT = random.Random(0).randbytes(300_000)
DIGEST = hashlib.sha256(CONTENT).hexdigest()


class Server(http.server.ThreadingHTTPServer):
    """Gives `content` for every path, with the faults that are set."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = CONTENT
        self.ranges = True  # whether it gives parts
        self.place = ""  # where it says that a part begins, if that is a lie
        self.version: str | None = '"v1"'
        self.length: int | str | None = -1  # the Content-Length, -1 for the true one
        self.break_after: list[int] = []  # bytes after which a connection breaks, one for each connection
        self.pause = 0.0  # seconds in the middle of each answer
        self.status = 0
        self.redirect = ""
        self.asked: list[str | None] = []  # the Range of each request
        self.paths: list[str] = []  # the path of each request

    def url(self, name: str = "weights.pth") -> str:
        return f"http://127.0.0.1:{self.server_port}/files/{name}"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        server = self.server
        if server.redirect and self.path.startswith("/files/"):
            self.send_response(302)
            self.send_header("Location", server.redirect)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        server.asked.append(self.headers.get("Range"))
        server.paths.append(self.path)
        if server.status:
            self.send_error(server.status)
            return
        begin = self.begin()
        body = server.content[begin:]
        if begin >= len(server.content) > 0:
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(server.content)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(206 if begin else 200)
        if begin:
            self.send_header(
                "Content-Range", f"bytes {server.place or begin}-{len(server.content) - 1}/{len(server.content)}"
            )
        if server.version:
            self.send_header("ETag", server.version)
        if server.length is not None:
            self.send_header("Content-Length", str(len(body) if server.length == -1 else server.length))
        self.end_headers()
        stop = server.break_after.pop(0) if server.break_after else len(body)
        half = len(body[:stop]) // 2
        self.wfile.write(body[:half])
        time.sleep(server.pause)
        self.wfile.write(body[half:stop])

    def begin(self) -> int:
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        same = self.headers.get("If-Range") in (None, self.server.version)
        return int(asked[1]) if asked and same and self.server.ranges else 0

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as found:
        thread = threading.Thread(target=found.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield found
        found.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MASKRCNN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    return tmp_path / "cache"


def kept(cache: Path) -> list[str]:
    return sorted(path.name for path in cache.rglob("*") if path.is_file() and path.suffix != ".lock")


def refused(url: str, expected: str, **checks: object) -> str:
    with pytest.raises(WeightsError, match=expected) as caught:
        fetch(url, **checks)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_once_and_then_offline(server: Server, cache: Path) -> None:
    url = server.url()
    found = fetch(url)
    assert found.read_bytes() == CONTENT
    assert found.name == "weights.pth"
    assert cache in found.parents
    assert kept(cache) == ["weights.pth"]
    server.shutdown()
    assert fetch(url) == found
    assert fetch(url, size=len(CONTENT), sha256=DIGEST) == found
    assert server.asked == [None]


def test_same_names_at_other_addresses(server: Server) -> None:
    first = fetch(server.url("a/model_final.pkl"))
    server.content = b"other"
    second = fetch(server.url("b/model_final.pkl"))
    assert first.name == second.name == "model_final.pkl"
    assert first.read_bytes() == CONTENT
    assert second.read_bytes() == b"other"


@pytest.mark.parametrize("checks", [{"size": len(CONTENT)}, {"sha256": DIGEST}, {"sha256": DIGEST[:8].upper()}])
def test_checks_that_hold(server: Server, checks: dict[str, object]) -> None:
    assert fetch(server.url(), **checks).read_bytes() == CONTENT  # type: ignore[arg-type]


def test_the_hash_in_the_name(server: Server, cache: Path) -> None:
    assert fetch(server.url(f"r50-{DIGEST[:8]}.pth")).read_bytes() == CONTENT
    assert fetch(server.url("mask_rcnn-20200504.pth")).read_bytes() == CONTENT  # a date
    message = refused(server.url("r50-0123abcd.pth"), "expected a SHA-256 hash of 0123abcd, found ")
    assert f"found {DIGEST[:8]}; the download was removed" in message
    assert "r50-0123abcd.pth" not in kept(cache)


def test_a_wrong_hash_and_a_wrong_size(server: Server, cache: Path) -> None:
    refused(server.url(), f"expected a SHA-256 hash of {'0' * 64}, found {DIGEST}", sha256="0" * 64)
    refused(server.url(), "expected a file of 7 bytes, the server has one of 300000", size=7)
    server.length = None  # it does not say beforehand
    refused(server.url(), "expected 7 bytes, found 300000; the download was removed", size=7)
    assert kept(cache) == []
    assert fetch(server.url()).read_bytes() == CONTENT


def test_a_file_in_the_cache_that_is_spoilt_comes_again(server: Server) -> None:
    found = fetch(server.url(), sha256=DIGEST)
    found.write_bytes(b"half")
    assert fetch(server.url(), sha256=DIGEST).read_bytes() == CONTENT
    found.write_bytes(b"half")
    assert fetch(server.url(), size=len(CONTENT)).read_bytes() == CONTENT


@pytest.mark.parametrize("version", ['"v1"', None])
def test_a_broken_connection_is_taken_up(server: Server, version: str | None) -> None:
    server.version = version
    server.break_after = [100_000, 50_000]
    assert fetch(server.url()).read_bytes() == CONTENT
    assert server.asked == [None, "bytes=100000-", "bytes=150000-"]


def test_a_server_without_parts_begins_again(server: Server) -> None:
    server.ranges = False
    server.break_after = [100_000]
    assert fetch(server.url()).read_bytes() == CONTENT
    assert server.asked == [None, "bytes=100000-"]


def test_a_connection_that_breaks_again_and_again(server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("maskrcnn.files.fetch.ATTEMPTS", 2)
    server.break_after = [100_000, 0, 0]
    message = refused(server.url(), "cannot download .* the next try continues after the 100000 bytes that are kept")
    assert "give the path of the file" in message
    assert kept(cache) == ["weights.pth.part", "weights.pth.part.version"]
    server.asked.clear()
    assert fetch(server.url()).read_bytes() == CONTENT  # as a later run does
    assert server.asked == ["bytes=100000-"]
    assert kept(cache) == ["weights.pth"]


def part_of(server: Server, monkeypatch: pytest.MonkeyPatch, **checks: object) -> None:
    """An earlier run that ended in the middle."""
    with monkeypatch.context() as patch:
        patch.setattr("maskrcnn.files.fetch.ATTEMPTS", 1)
        server.break_after = [100_000, 0]
        refused(server.url(), "100000 bytes that are kept", **checks)
    server.asked.clear()


def test_a_part_of_another_version_is_not_used(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    part_of(server, monkeypatch)
    server.content, server.version = CONTENT[::-1], '"v2"'
    assert fetch(server.url()).read_bytes() == CONTENT[::-1]
    assert server.asked == ["bytes=100000-"]


def test_a_part_that_nothing_vouches_for_is_not_used(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    server.version = None
    part_of(server, monkeypatch)
    server.content = CONTENT[::-1]
    assert fetch(server.url()).read_bytes() == CONTENT[::-1]
    assert server.asked == [None]


def test_a_part_that_its_hash_vouches_for(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    server.version = None
    part_of(server, monkeypatch, sha256=DIGEST)
    assert fetch(server.url(), sha256=DIGEST).read_bytes() == CONTENT
    assert server.asked == ["bytes=100000-"]


@pytest.mark.parametrize("extra", [b"", b"longer"])
def test_a_part_that_is_the_whole_or_more(server: Server, cache: Path, extra: bytes) -> None:
    target = fetch(server.url(), sha256=DIGEST)
    target.rename(target.with_name("weights.pth.part"))
    target.with_name("weights.pth.part").write_bytes(CONTENT + extra)
    assert fetch(server.url(), sha256=DIGEST).read_bytes() == CONTENT
    assert kept(cache) == ["weights.pth"]


@pytest.mark.parametrize("length", ["abc", "-5", "", "9" * 5000])
def test_a_length_that_is_no_number(server: Server, cache: Path, length: str) -> None:
    server.length = length
    refused(server.url(), "cannot download .*the server says a Content-Length that is no number of bytes")
    assert kept(cache) == []


def test_a_part_whose_place_is_no_number(server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    part_of(server, monkeypatch)
    server.place = "9" * 5000
    monkeypatch.setattr("maskrcnn.files.fetch.ATTEMPTS", 1)
    refused(server.url(), "the server sent another part .* 100000 bytes that are kept")


def test_redirects(server: Server) -> None:
    server.redirect = f"http://127.0.0.1:{server.server_port}/elsewhere/{DIGEST}"
    server.break_after = [100_000]
    found = fetch(server.url())
    assert found.name == "weights.pth"
    assert found.read_bytes() == CONTENT
    assert server.asked == [None, "bytes=100000-"]


def test_redirects_to_files_of_this_machine(server: Server, cache: Path) -> None:
    server.redirect = Path(__file__).as_uri()
    refused(server.url(), "cannot download")
    assert kept(cache) == []


def test_a_slow_server(server: Server) -> None:
    server.pause = 0.3
    assert fetch(server.url(), timeout=2).read_bytes() == CONTENT
    assert len(server.asked) == 1


def test_a_server_that_falls_silent(server: Server) -> None:
    server.pause = 0.6
    threading.Timer(0.2, lambda: setattr(server, "pause", 0)).start()
    assert fetch(server.url(), timeout=0.3).read_bytes() == CONTENT
    assert server.asked == [None, "bytes=150000-"]


@pytest.mark.parametrize(
    ("status", "expected"),
    [(403, "403 Forbidden; .*browser"), (404, "404 Not Found; the address is wrong"), (500, "500 .*try again later")],
)
def test_a_server_that_refuses(server: Server, cache: Path, status: int, expected: str) -> None:
    server.status = status
    refused(server.url(), f"cannot download {server.url()}: the server answers {expected}")
    assert kept(cache) == []
    assert len(server.asked) == 1


def test_no_network() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    start = time.perf_counter()
    refused(f"http://127.0.0.1:{port}/w.pth", "cannot download .*refused.*without a network, .*give the path")
    assert time.perf_counter() - start < 1


def test_a_proxy_from_the_environment(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("no_proxy")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{server.server_port}")
    assert fetch("http://weights.invalid/w.pth").read_bytes() == CONTENT


@pytest.mark.parametrize(
    "url", ["file:///etc/passwd", "ftp://host/w.pth", "resnet50", "", "https://", "http:/x", "C:\\w"]
)
def test_addresses_that_are_none(url: str, cache: Path) -> None:
    refused(url, "expected an address that begins with https:// or http://")
    assert not cache.exists()


@pytest.mark.parametrize(
    "url", ["http://[bad/w.pth", "http://127.0.0.1:x/w.pth", "http://127.0.0.1:1/a b", "http://x.invalid/é"]
)
def test_addresses_that_are_broken(url: str) -> None:
    refused(url, "cannot download|expected an address")


@pytest.mark.parametrize(
    "name", ["..", "%2e%2e%2f%2e%2e%2fetc%2fpasswd", ".hidden", "a%5c..%5cb", "w.pth?a=1#x", "a:b"]
)
def test_names_stay_in_the_cache(server: Server, cache: Path, name: str) -> None:
    found = fetch(server.url(name))
    assert found.resolve().parent.parent == cache.resolve()
    assert re.fullmatch(r"[\w.-]+", found.name)
    assert not found.name.startswith(".")


@pytest.mark.parametrize(("name", "sent"), [("a b.pth", "a%20b.pth"), ("ä.pth?v=ö", "%C3%A4.pth?v=%C3%B6")])
def test_names_with_umlauts_and_spaces(server: Server, name: str, sent: str) -> None:
    assert fetch(server.url(name)).read_bytes() == CONTENT
    assert server.paths == [f"/files/{sent}"]


@pytest.mark.parametrize(
    ("url", "sent"),
    [
        ("http://host/bäume.png", "http://host/b%C3%A4ume.png"),
        ("https://host:80/a?d=my folder/ä.png", "https://host:80/a?d=my%20folder/%C3%A4.png"),
        ("http://host/a%20b%2Fc?x=a+b&y=%C3%A4", "http://host/a%20b%2Fc?x=a+b&y=%C3%A4"),
        ("http://bücher.example/ß", "http://bücher.example/%C3%9F"),
        ("http://[::1]:80/a[1](2)~!.png", "http://[::1]:80/a[1](2)~!.png"),
    ],
)
def test_characters_become_codes_once(url: str, sent: str) -> None:
    assert sendable(url) == sent
    assert sendable(sent) == sent


def test_codes_are_of_the_encoding() -> None:
    assert sendable("/ä b", "iso-8859-1") == "/%E4%20b"
    for broken in ("http://[::1", "http://host/\ud800"):
        with pytest.raises(ValueError, match=r"Invalid IPv6|surrogates"):
            sendable(broken)


def test_a_disk_with_too_little_space(server: Server, cache: Path) -> None:
    server.length = 1 << 60
    message = refused(server.url(), f"the disk of {cache}.* is full .{1 << 60} more bytes are needed")
    assert "MASKRCNN_CACHE" in message


def test_a_disk_that_fills_up(server: Server) -> None:
    """A limit on the size of files makes the system refuse to write, as a full disk does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (120_000, before[1]))
    try:
        refused(server.url(), r"the disk of .* is full .*continues where it stopped")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert fetch(server.url()).read_bytes() == CONTENT
    assert server.asked[-1] is not None


def test_a_cache_that_cannot_be_written(server: Server, cache: Path) -> None:
    cache.write_text("a file")
    refused(server.url(), "cannot write to .*set MASKRCNN_CACHE")


def test_the_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert cache_folder() == tmp_path / "cache"
    monkeypatch.delenv("MASKRCNN_CACHE")
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "maskrcnn"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path("~/.cache/maskrcnn").expanduser()
    monkeypatch.setattr(sys, "platform", "darwin")
    assert cache_folder() == Path("~/Library/Caches/maskrcnn").expanduser()


# Without the package's other imports, which take seconds.
FETCH = "import sys; from maskrcnn.files import fetch\nfetch.BAR_AFTER /= 10; print(fetch.fetch(sys.argv[1]))"


def start(url: str, **streams: int) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", FETCH, url], text=True, **streams)  # type: ignore[call-overload,no-any-return]


@pytest.mark.slow
def test_two_processes_at_once(server: Server, cache: Path) -> None:
    server.pause = 0.3
    processes = [start(server.url(), stdout=subprocess.PIPE) for _ in range(3)]
    found = {process.communicate(timeout=60)[0].strip() for process in processes}
    assert len(found) == 1
    assert Path(found.pop()).read_bytes() == CONTENT
    assert server.asked == [None]
    assert kept(cache) == ["weights.pth"]


@pytest.mark.slow
def test_a_process_that_is_killed_leaves_what_it_has(server: Server, cache: Path) -> None:
    server.pause = 30
    process = start(server.url())
    deadline = time.monotonic() + 30
    while "weights.pth.part" not in kept(cache) or not next(cache.rglob("*.part")).stat().st_size:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    time.sleep(0.2)
    process.kill()
    process.wait()
    server.pause = 0
    assert fetch(server.url()).read_bytes() == CONTENT
    assert server.asked[1] == "bytes=150000-"


@pytest.mark.slow
@pytest.mark.parametrize(("pause", "shown"), [(0.3, True), (0, False)])
def test_a_bar_on_a_terminal_for_what_takes_long(server: Server, pause: float, shown: bool) -> None:
    server.pause = pause
    server.content = CONTENT * 10  # more than one read after the pause
    ours, theirs = pty.openpty()
    process = start(server.url(), stderr=theirs, stdout=subprocess.DEVNULL)
    process.wait(60)
    os.set_blocking(ours, False)
    os.close(theirs)
    try:
        written = os.read(ours, 100_000).decode()
    except OSError:
        written = ""
    os.close(ours)
    assert ("weights.pth" in written) == shown
    assert ("/s" in written) == shown


@pytest.mark.slow
def test_no_bar_without_a_terminal(server: Server) -> None:
    server.pause = 0.3
    process = start(server.url(), stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
    assert process.communicate(timeout=60)[1] == ""
