"""Output that nobody reads, that the disk does not take, or that the encoding lacks."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path

import pytest

from maskrcnn.files.streams import lasting_output


def unread_pipe() -> int:
    read, write = os.pipe()
    os.close(read)
    return write


@pytest.mark.parametrize("name", ["stdout", "stderr"])
def test_what_nobody_reads_is_dropped(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    with open(unread_pipe(), "w") as stream:  # closing it would raise, if its buffer still had to be written
        monkeypatch.setattr(sys, name, stream)
        with lasting_output():
            for _ in range(3):
                print("x" * 100_000, file=getattr(sys, name), flush=True)
        assert getattr(sys, name) is stream


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_loses_messages_but_no_results_silently(monkeypatch: pytest.MonkeyPatch) -> None:
    with open("/dev/full", "w") as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        with lasting_output():
            print("a message", file=sys.stderr, flush=True)
    with open("/dev/full", "w") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        with lasting_output(), pytest.raises(OSError, match="No space left"):
            print("AP 0.5", flush=True)


def test_a_closed_output_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    with lasting_output():
        print("to nobody", flush=True)
        assert not sys.stdout.isatty()


def test_characters_that_the_encoding_lacks_are_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    content = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(content, encoding="latin-1"))
    with lasting_output():
        print("Bär \u732b AP 0.5", flush=True)
    assert content.getvalue().decode("latin-1").rstrip() == "Bär \\u732b AP 0.5"
