"""The command `maskrcnn`: one small file for each command, imported when the command is called.

Each file has a frozen dataclass whose fields are the flags, with `run() -> exit code`, and `parse(argv)`
that returns one. Exit codes: 0 done, 1 a check failed, 2 bad usage or bad input, 130 interrupted.
"""

from __future__ import annotations

import difflib
import errno
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module
from types import FrameType

from maskrcnn import __version__
from maskrcnn.allocator import keep_freed_memory
from maskrcnn.errors import MaskRCNNError, printable
from maskrcnn.threads import choose_threads

COMMANDS = {
    "demo": "train and evaluate on generated images: minutes on 2 cores, no download",
    "train": "train a model on annotated images",
    "evaluate": "COCO AP and AR of a model, or of a results JSON",
    "compare": "put training runs side by side: figures, time, and the settings that differ",
    "predict": "find objects in images; write predictions.json and pictures",
    "export": "write a model as ONNX or OpenVINO, checked against PyTorch",
    "data": "check, draw, convert, split, merge or cut down a data set",
    "weights": "inspect, convert and list models and checkpoints of other frameworks",
    "serve": "answer requests for the objects of images over HTTP",
    "ablate": "repeat the paper's ablations on your data, as one table",
    "bench": "compare speed and memory with torchvision, and the server with direct prediction",
    "presets": "list the named configurations and their cost",
}

# Errors of the machine, not of the package: they get one line and no traceback.
_MACHINE_ERRORS = {
    *(errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.EMFILE, errno.ENFILE),
    *(errno.EFBIG, errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR, errno.EISDIR, errno.EEXIST),
}


def overview() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {text}" for name, text in COMMANDS.items()]
    return "\n".join(
        [
            "usage: maskrcnn COMMAND ...",
            "",
            f"Mask R-CNN in PyTorch, version {__version__}",
            "",
            *lines,
            "",
            "maskrcnn COMMAND --help shows the flags of a command.",
        ]
    )


def unknown_command(name: str) -> str:
    near = difflib.get_close_matches(name, COMMANDS, n=2, cutoff=0.4)
    hint = f"nearest: {', '.join(near)}" if near else f"there are: {', '.join(COMMANDS)}"
    return f"unknown command {name!r}; {hint}"


def fail(message: str) -> int:
    """Prints one line on stderr and returns the exit code of bad input."""
    print(f"error: {printable(' '.join(message.split()))}", file=sys.stderr)
    return 2


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command that `argv` names and returns its exit code, whether or not somebody reads its output."""
    from maskrcnn.files.streams import lasting_output

    args = list(sys.argv[1:] if argv is None else argv)
    with lasting_output(), interrupted_by_signals():
        return exit_code_of(lambda: run_command(args))


@contextmanager
def interrupted_by_signals() -> Iterator[None]:
    """Inside it, SIGTERM and SIGHUP end a command as Ctrl-C does: what is finished is written, and temporary files are
    removed. A batch system sends one of them before it kills. `train` and `serve` replace this by ways of their own."""
    own = os.getpid()

    def interrupt(number: int, frame: FrameType | None) -> None:
        if os.getpid() != own:  # a process that was forked has nothing to write
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        signal.signal(number, signal.SIG_IGN)  # it may be sent twice
        raise KeyboardInterrupt

    previous = {}
    with suppress(ValueError):  # only the main thread can handle signals
        for name in {"SIGTERM", "SIGHUP"} & signal.Signals.__members__.keys():
            number = signal.Signals[name]
            if signal.getsignal(number) is signal.SIG_DFL:  # under `nohup`, SIGHUP is ignored
                previous[number] = signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def run_command(args: Sequence[str]) -> int:
    """Runs the command that the first argument names with the other arguments."""
    if not args:
        print(overview(), file=sys.stderr)
        return 2
    name, *rest = args
    if name in ("-h", "--help"):
        print(overview())
        return 0
    if name == "--version":
        print(__version__)
        return 0
    if name not in COMMANDS:
        return fail(unknown_command(name))
    choose_threads()
    keep_freed_memory()
    exit_code: int = import_module(f"maskrcnn.cli.{name}").parse(rest).run()
    return exit_code


def exit_code_of(run: Callable[[], int]) -> int:
    """Runs a command. Errors of users and machines become one line; bugs of the package keep their traceback."""
    try:
        exit_code = run()
        sys.stdout.flush()
        return exit_code
    except MaskRCNNError as error:
        return fail(str(error))
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except OSError as error:
        if error.errno not in _MACHINE_ERRORS:
            raise
        return fail(f"{error.strerror}: {error.filename or 'while writing'}; free the space or choose another path")
