from __future__ import annotations

import errno
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

import maskrcnn
from maskrcnn import cli
from maskrcnn.errors import DataError
from small_data import write_small


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
    assert is_one_line_error(ran.err)


@pytest.mark.parametrize("name", [name for name in cli.COMMANDS if name not in ("demo", "presets")])
def test_a_command_that_needs_arguments_shows_its_help_without_any(command, name):
    ran = command(name)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err == command(name, "--help").out


def raising(error: BaseException):
    def run() -> int:
        raise error

    return run


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (DataError("a.json: not COCO\n  found a list"), 2, "error: a.json: not COCO\\n found a list\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
        (
            OSError(errno.ENOSPC, "No space left on device", "runs/x/last.pt"),
            2,
            "error: No space left on device: runs/x/last.pt; free the space or choose another path\n",
        ),
    ],
)
def test_expected_errors_are_one_line(capsys, error, code, text):
    assert cli.exit_code_of(raising(error)) == code
    assert tuple(capsys.readouterr()) == ("", text)


WRITES = """
import multiprocessing, sys, time
from pathlib import Path
from maskrcnn import cli
from maskrcnn.files.atomic import atomic_write

def tell_and_wait(writing):
    writing.send(None)
    time.sleep(60)

def run():
    with atomic_write(Path(sys.argv[1]) / "model.onnx") as temporary:
        temporary.write_text("half")
        reading, writing = multiprocessing.Pipe()
        child = multiprocessing.get_context("fork").Process(target=tell_and_wait, args=(writing,))
        child.start()
        reading.recv()
        child.terminate()
        child.join()
        print(child.exitcode, flush=True)
        time.sleep(60)

cli.run_command = lambda args: run()
sys.exit(cli.main([]))
"""


@pytest.mark.parametrize("kind", [signal.SIGTERM, signal.SIGHUP], ids=lambda kind: kind.name)
def test_a_command_that_is_told_to_end_removes_its_temporary_files(kind: signal.Signals, tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", WRITES, tmp_path], stdout=-1, stderr=-1, text=True) as process:
        assert process.stdout.readline() == f"{-signal.SIGTERM}\n"  # a process of the command ends at once
        assert len(list(tmp_path.iterdir())) == 1
        process.send_signal(kind)
        assert process.communicate(timeout=30)[1] == "interrupted\n"
    assert process.returncode == 130
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("error", [ZeroDivisionError(), OSError(errno.ECHILD, "a defect")])
def test_defects_keep_their_traceback(error):
    with pytest.raises(type(error)):
        cli.exit_code_of(raising(error))


@pytest.fixture
def unread(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Both outputs of the process are pipes whose reader has gone away."""
    with ExitStack() as files:
        for name in ("stdout", "stderr"):
            read, write = os.pipe()
            os.close(read)
            monkeypatch.setattr(sys, name, files.enter_context(open(write, "w")))
        yield


@pytest.mark.usefixtures("unread")
@pytest.mark.parametrize(
    ("args", "code"),
    [
        (["--help"], 0),
        (["trian"], 2),
        (["data", "check", "usable.json"], 0),
        (["data", "check", "empty.json"], 2),
    ],
)
def test_a_command_whose_reader_goes_away_ends_with_the_code_of_its_result(args, code, tmp_path, monkeypatch):
    content = json.loads(write_small(tmp_path, "usable", 2).read_text())
    (tmp_path / "empty.json").write_text(json.dumps({**content, "annotations": []}))
    monkeypatch.chdir(tmp_path)
    assert cli.main(args) == code


def test_commands_keep_freed_memory(monkeypatch):
    calls = []
    monkeypatch.setattr(cli, "keep_freed_memory", lambda: calls.append("kept"))
    with pytest.raises(SystemExit):
        cli.main(["predict", "--help"])
    assert calls == ["kept"]


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("check", "a", "--order", "up"), "--order: expected one of down, right, found up; see"),
        (
            ("show", "a", "--out", "o", "--size", "None"),
            "--size: expected one of small, medium, large, found None; see",
        ),
        (
            ("convert", "a", "b", "--to", "x's"),
            "--to: expected one of coco, rle-csv, yolo, labelme, cvat, label-studio,",
        ),
    ],
)
def test_the_words_of_a_flag_are_named_in_their_order(command, args, said):
    ran = command("data", *args)
    assert (ran.code, ran.err.startswith(f"error: {said}")) == (2, True), ran.err
    assert "--order {down,right}" in command("data", "check", "--help").out


@pytest.mark.parametrize(
    ("args", "help_of"),
    [
        (("data", "split", "a.json"), "data split"),
        (("data", "chekc", "a.json"), "data"),
        (("export", "--no"), "export"),
    ],
)
def test_a_wrong_flag_names_the_help_of_its_subcommand(command, args, help_of):
    assert command(*args).err.rstrip().endswith(f"; see maskrcnn {help_of} --help")
