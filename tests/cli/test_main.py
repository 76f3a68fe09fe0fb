from __future__ import annotations

import errno
import re
import shlex
import subprocess
import sys

import pytest

import maskrcnn
from maskrcnn import cli
from maskrcnn.errors import DataError


def is_one_line_error(text: str) -> bool:
    return re.fullmatch(r"error: [^\n]+\n", text) is not None


def test_help_lists_every_command(command):
    ran = command("--help")
    assert ran.code == 0
    assert all(name in ran.out for name in cli.COMMANDS)


def test_no_command_is_a_usage_error(command):
    ran = command()
    assert (ran.code, ran.out) == (2, "")
    assert "usage: maskrcnn" in ran.err


def test_version(command):
    assert command("--version").out.strip() == maskrcnn.__version__


@pytest.mark.parametrize(("wrong", "nearest"), [("trian", "train"), ("evalute", "evaluate"), ("prediction", "predict")])
def test_a_wrong_command_names_the_nearest(command, wrong, nearest):
    ran = command(wrong)
    assert ran.code == 2
    assert ran.out == ""
    assert is_one_line_error(ran.err)
    assert nearest in ran.err


def test_a_command_like_none_names_all(command):
    ran = command("xyzzy")
    assert ran.code == 2
    assert all(name in ran.err for name in cli.COMMANDS)


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_has_help(command, name):
    ran = command(name, "--help")
    assert ran.code == 0
    assert f"maskrcnn {name}" in ran.out


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_an_unknown_flag_is_a_usage_error(command, name):
    ran = command(name, "--no-such-flag", "1")
    assert ran.code == 2
    assert ran.out == ""


def raising(error: BaseException):
    def run() -> int:
        raise error

    return run


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (DataError("a.json: not COCO\n  found a list"), 2, "error: a.json: not COCO found a list\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
        (
            OSError(errno.ENOSPC, "No space left on device", "runs/x/last.pt"),
            2,
            "error: No space left on device: runs/x/last.pt; free the space or choose another folder\n",
        ),
    ],
)
def test_expected_errors_are_one_line(capsys, error, code, text):
    assert cli.exit_code_of(raising(error)) == code
    assert tuple(capsys.readouterr()) == ("", text)


@pytest.mark.parametrize("error", [ZeroDivisionError(), OSError(errno.ECHILD, "a defect")])
def test_defects_keep_their_traceback(error):
    with pytest.raises(type(error)):
        cli.exit_code_of(raising(error))


def test_a_reader_that_goes_away_is_no_error():
    done = subprocess.run(
        f"{shlex.quote(sys.executable)} -c 'import sys; from maskrcnn import cli; "
        'sys.exit(cli.exit_code_of(lambda: print("x\\n" * 100000) or 0))\' | head -1; echo ${PIPESTATUS[0]}',
        shell=True,
        executable="/bin/bash",
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["x", "0"]
    assert done.stderr == ""


def test_commands_keep_freed_memory(monkeypatch):
    calls = []
    monkeypatch.setattr(cli, "keep_freed_memory", lambda: calls.append("kept"))
    with pytest.raises(SystemExit):
        cli.main(["predict", "--help"])
    assert calls == ["kept"]
