"""Downloads files into a cache folder. Downloads can be resumed, are checked, and are later found without a network."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException, HTTPResponse
from pathlib import Path, PurePosixPath
from typing import BinaryIO, NoReturn
from urllib.error import HTTPError, URLError
from urllib.parse import quote, unquote, urlsplit
from urllib.request import Request, build_opener

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from maskrcnn import __version__
from maskrcnn.errors import WeightsError

TIMEOUT = 30.0  # seconds without a byte before a connection counts as broken
ATTEMPTS = 5  # give up after this many connections in a row without a new byte
BAR_AFTER = 2.0  # seconds until a progress bar is shown
BLOCK = 1 << 20  # bytes

# File names of torchvision and MMDetection end in the first digits of the SHA-256. Dates (20yymmdd) are excluded.
_HASH_IN_NAME = re.compile(r"-(?!20\d{6}\.)([a-f0-9]{8,64})\.")
_KEPT = "%/:?#[]@!$&'()*+,;=~"  # have a meaning in addresses; with %, because parts may be codes already
_NUMBER = r"[0-9]{1,20}"  # of bytes in a header; `int` would also take a sign, and fails for thousands of digits
_DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def cache_folder() -> Path:
    """$MASKRCNN_CACHE if it is set, else `maskrcnn` in the cache folder of the platform."""
    if chosen := os.environ.get("MASKRCNN_CACHE"):
        return Path(chosen).expanduser()
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA", "~/AppData/Local"))
    elif sys.platform == "darwin":
        base = Path("~/Library/Caches")
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
    return base.expanduser() / "maskrcnn"


def sendable(url: str, encoding: str = "utf-8") -> str:
    """An address in the characters that HTTP allows: others in its path and query, such as umlauts and spaces, become
    percent codes, as browsers send them. The host stays as it is.

    Args:
        encoding: of the codes.

    Raises:
        ValueError: the address is malformed, or has half a surrogate pair.
    """
    parts = urlsplit(url)
    path, query = (quote(part, _KEPT, encoding) for part in (parts.path, parts.query))
    return parts._replace(path=path, query=query).geturl()


def fetch(url: str, *, size: int | None = None, sha256: str | None = None, timeout: float = TIMEOUT) -> Path:
    """Downloads a file into the cache folder, unless it is there already, and returns its path.

    An interrupted download continues where it stopped, even in a later call. A lock lets only one process download a
    file at a time. Proxies come from the environment.

    Args:
        url: http or https.
        size: expected size in bytes.
        sha256: hexadecimal digits of the expected SHA-256, all or the first ones; default: those in the file's name, as
            in `resnet50-11ad3fa6.pth`.
        timeout: seconds without a byte before a connection counts as broken.

    Raises:
        WeightsError: the URL is malformed, the download fails, the disk is full, or the file has another size or hash.
    """
    if not re.match(r"https?://(\[[0-9a-fA-F:.]+\]|[^/\[\]\s]+)", url):
        raise WeightsError(f"{url!r}: expected an address that begins with https:// or http://, or a path to a file")
    name = re.sub(r"[^\w.+=-]", "_", PurePosixPath(unquote(urlsplit(url).path)).name).lstrip(".") or "file"
    # Each URL has its own folder, because many files are called model_final.pkl.
    target = cache_folder() / hashlib.sha256(url.encode()).hexdigest()[:12] / name
    found = _HASH_IN_NAME.search(name)
    digest = (sha256 or (found[1] if found else "")).lower()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _locked(target.with_name(f"{name}.lock")):
            if target.is_file() and not _difference(target, size, digest):
                return target
            part = target.with_name(f"{name}.part")
            _Download(url, part, size, timeout, can_check=bool(digest)).run()
            if problem := _difference(part, size, digest):
                part.unlink()
                raise WeightsError(
                    f"{url}: {problem}; the download was removed: try again; if that does not help, the address holds "
                    "another file or a proxy answers in its place"
                )
            with open(part, "rb+") as file:
                os.fsync(file.fileno())  # before renaming, as in `atomic_write`
            os.replace(part, target)
            return target
    except OSError as error:
        if error.errno in _DISK_FULL:
            _disk_full(target.parent, str(error))
        raise WeightsError(f"cannot write to {target.parent} ({error}); set MASKRCNN_CACHE to another folder") from None


def _difference(path: Path, size: int | None, digest: str) -> str:
    """How the size or hash of a file differs from what is expected; an empty string if they agree."""
    if size is not None and path.stat().st_size != size:
        return f"expected {size} bytes, found {path.stat().st_size}"
    if not digest:
        return ""
    with open(path, "rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    return "" if found.startswith(digest) else f"expected a SHA-256 hash of {digest}, found {found[: len(digest)]}"


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Holds a file lock, one process at a time. The system releases the lock of a process that dies."""
    with open(path, "a+b") as file:
        if sys.platform == "win32":
            import msvcrt

            while True:
                try:
                    msvcrt.locking(file.fileno(), msvcrt.LK_LOCK, 1)
                    break
                except OSError:  # LK_LOCK gives up after ten seconds, while the other process still downloads
                    continue
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _read(response: HTTPResponse) -> bytes:
    """The next bytes of a response. Failures become ConnectionError, to tell them apart from errors of the disk."""
    try:
        return response.read1(BLOCK)
    except OSError as error:
        raise ConnectionError(str(error) or type(error).__name__) from error


def _disk_full(folder: Path, reason: str) -> NoReturn:
    raise WeightsError(
        f"the disk of {folder} is full ({reason}); free some space and try again (the download continues where it "
        "stopped), or set MASKRCNN_CACHE to a folder on another disk"
    ) from None


class _Download:
    """Downloads one file to `part`, over several connections if they break."""

    def __init__(self, url: str, part: Path, size: int | None, timeout: float, can_check: bool) -> None:
        self.url, self.part, self.size, self.timeout = url, part, size, timeout
        self.state = part.with_name(f"{part.name}.version")  # the ETag or Last-Modified header of the partial file
        # Without a version or a hash, halves of two different files could be joined unnoticed.
        if not self.state.is_file() and not can_check:
            part.unlink(missing_ok=True)

    def run(self) -> None:
        """Fills `part`.

        Raises:
            WeightsError: the server refuses, cannot be reached, or `ATTEMPTS` connections in a row bring nothing.
            OSError: the disk fails.
        """
        failures, reason = 0, ""
        while failures < ATTEMPTS:
            before = self._have()
            try:
                if self._connect():
                    self.state.unlink(missing_ok=True)
                    return
                reason = "the connection broke"
            except HTTPError as error:
                with error:
                    if error.code != 416:
                        self._refused(error)
                # 416: no bytes after the partial file. It is whole if it has the size of the file on the server.
                if error.headers.get("Content-Range") == f"bytes */{before}":
                    self.state.unlink(missing_ok=True)
                    return
                self.part.unlink(missing_ok=True)
                reason = "the file changed"
            except (URLError, HTTPException, TimeoutError, ConnectionError, UnicodeError) as error:
                reason = str(getattr(error, "reason", error)) or type(error).__name__
                if failures == 0 and before == self._have() == 0:
                    break  # there is no network: do not try again
            failures = failures + 1 if self._have() <= before else 0
            time.sleep(0.1 * 2**failures)
        kept = f"the next try continues after the {self._have()} bytes that are kept; " if self._have() else ""
        raise WeightsError(
            f"cannot download {self.url} ({reason}); {kept}"
            "without a network, download it on another machine and give the path of the file"
        )

    def _have(self) -> int:
        return self.part.stat().st_size if self.part.is_file() else 0

    def _connect(self) -> bool:
        """Downloads over one connection; returns whether the file is whole then."""
        have = self._have()
        headers = {"User-Agent": f"maskrcnn/{__version__}"}
        if have:
            headers["Range"] = f"bytes={have}-"
            if self.state.is_file():
                headers["If-Range"] = self.state.read_text()
        # urlopen would cache the proxies of the first call.
        with build_opener().open(Request(sendable(self.url), headers=headers), timeout=self.timeout) as response:
            begin = re.match(rf"bytes ({_NUMBER})-", response.headers.get("Content-Range", ""))
            continues = response.status == 206 and begin is not None and int(begin[1]) == have
            if response.status == 206 and not continues:
                raise HTTPException("the server sent another part than the requested one")
            length = response.headers.get("Content-Length")
            if length is not None and not re.fullmatch(_NUMBER, length.strip()):
                raise HTTPException("the server says a Content-Length that is no number of bytes")
            total = self.size if length is None else int(length) + (have if continues else 0)
            self._check(total)
            if not continues:
                version = response.headers.get("ETag") or response.headers.get("Last-Modified")
                self.state.unlink(missing_ok=True)
                if version:
                    self.state.write_text(version)
            with open(self.part, "ab" if continues else "wb") as file:
                self._copy(response, file, total)
        return total is None or self._have() >= total

    def _check(self, total: int | None) -> None:
        """Checks the size of the file, `total` bytes, and the free disk space before writing."""
        if total is None:
            return
        if self.size is not None and total != self.size:
            self.part.unlink(missing_ok=True)
            raise WeightsError(
                f"{self.url}: expected a file of {self.size} bytes, the server has one of {total}; "
                "the address holds another file, or a proxy answers in its place"
            )
        needed = total - self._have()
        free = shutil.disk_usage(self.part.parent).free
        if needed > free:
            _disk_full(self.part.parent, f"{needed} more bytes are needed, {free} are free")

    def _copy(self, response: HTTPResponse, file: BinaryIO, total: int | None) -> None:
        """Writes the body of a response to the file, and shows a progress bar on a terminal."""
        console = Console(stderr=True)
        bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=20),
            DownloadColumn(),
            TransferSpeedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
            transient=True,
        )
        task = bar.add_task(self.part.name.removesuffix(".part"), total=total, completed=file.tell())
        shown_from = time.monotonic() + BAR_AFTER
        try:
            while block := _read(response):
                file.write(block)
                file.flush()
                bar.advance(task, len(block))
                if time.monotonic() > shown_from and not bar.live.is_started:
                    bar.start()
        finally:
            bar.stop()

    def _refused(self, error: HTTPError) -> NoReturn:
        hints = {
            401: "the file needs a login: download it in a browser and give its path",
            403: "the server may refuse programs: download the file in a browser and give its path",
            404: "the address is wrong or the file was moved: look for its new address",
            407: "the proxy needs a login: put user and password into https_proxy",
            429: "the server got too many requests: try again later",
        }
        hint = hints.get(error.code, "the server has a problem: try again later")
        raise WeightsError(f"cannot download {self.url}: the server answers {error.code} {error.reason}; {hint}")
