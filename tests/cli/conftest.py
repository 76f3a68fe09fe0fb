"""Running commands: in this process for what they do, in a fresh one for how fast and how clean they start."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from maskrcnn.cli import main


@dataclass(frozen=True)
class Ran:
    code: int
    out: str
    err: str


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Callable[..., Ran]:
    """Calls `maskrcnn ARGS...` in this process."""

    def run(*args: object) -> Ran:
        try:
            code = main([str(arg) for arg in args])
        except SystemExit as stop:  # the flag parser's way to say help and usage
            code = int(stop.code or 0)
        captured = capsys.readouterr()
        return Ran(code, captured.out, captured.err)

    return run


@pytest.fixture(scope="session")
def fresh() -> Callable[..., Ran]:
    """Calls `python -m maskrcnn ARGS...` in a process of its own."""

    def run(*args: object) -> Ran:
        done = subprocess.run(
            [sys.executable, "-m", "maskrcnn", *map(str, args)], capture_output=True, text=True, check=False
        )
        return Ran(done.returncode, done.stdout, done.stderr)

    return run
