"""Standard output and standard error that outlive their readers, and write any text."""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

# The errors of a pipe and of a terminal that nobody reads any more (`| head -1`, a closed connection).
_UNREAD = (errno.EPIPE, errno.EIO)


@contextmanager
def lasting_output() -> Iterator[None]:
    """Inside it, the program goes on when the reader of its output goes away: what nobody reads is dropped.

    Messages on stderr that cannot be written for another reason are dropped too. On stdout this raises OSError once,
    because the results of a command would be lost. Characters that the encoding lacks are written as escapes.
    """
    out, err = sys.stdout, sys.stderr
    wrapped: list[Any] = [_Lasting(out, _UNREAD), _Lasting(err, tuple(errno.errorcode))]
    sys.stdout, sys.stderr = wrapped
    try:
        yield
    finally:
        sys.stdout, sys.stderr = out, err


class _Lasting:
    """A text stream that writes any text and ignores the given errors; in all other respects it is `stream`."""

    def __init__(self, stream: TextIO | None, ignored: tuple[int, ...]) -> None:
        self._stream = io.StringIO() if stream is None else stream  # Python has none where a shell has closed it
        self._ignored = ignored

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except UnicodeEncodeError as error:
            return self.write(text.encode(error.encoding, "backslashreplace").decode(error.encoding))
        except OSError as error:
            self._drop(error)
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError as error:
            self._drop(error)

    def _drop(self, error: OSError) -> None:
        """Sends what is in the buffer, and all that follows, nowhere. Python writes the rest when it ends."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._stream.fileno())
        os.close(nowhere)
        if error.errno not in self._ignored:
            raise error
