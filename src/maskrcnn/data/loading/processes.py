"""Computes results in worker processes and gives them in order.

Each process has a pipe of its own, and no lock is shared: one that is killed or stopped cannot block the others or the
end of the program. Tensors pass through shared memory.
"""

from __future__ import annotations

import atexit
import os
import pickle
import signal
import sys
import traceback
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from itertools import cycle
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from multiprocessing.reduction import ForkingPickler
from queue import Empty, Queue
from threading import Thread
from types import ModuleType
from typing import Any, TypeVar

import torch
from torch import multiprocessing

from maskrcnn.errors import MaskRCNNError, TrainingError
from maskrcnn.threads import usable_cores

Item = TypeVar("Item")
Result = TypeVar("Result")

AHEAD = 2  # results that each process makes ahead of their use
TICK = 1.0  # seconds between two looks at the processes while a result is late
STOPPED = 10.0  # seconds after which a process that was stopped counts as lost; Ctrl-Z stops all for a moment
PATIENCE = 600.0  # seconds after which a process without a result counts as lost
# A terminal and a batch system send these to all processes of a run: only the training process handles them.
STOP_SIGNALS = tuple(
    signal.Signals[name] for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1") if name in signal.Signals.__members__
)


@dataclass(frozen=True)
class Duty:
    """What processes do, for messages.

    Attributes:
        does: as in "a process that loads images".
        advice: what helps if one of them is lost.
    """

    does: str
    advice: str


LOADING = Duty(
    "loads images",
    "free memory, give a container more shared memory (docker run --shm-size 8g), or load in the training process with "
    "--train.workers 0",
)


@dataclass(frozen=True)
class _Worker:
    process: BaseProcess
    pipe: Connection


@dataclass(frozen=True)
class _Failure:
    """What a process sends in place of a result: one of our errors, or the reason why there is no result."""

    error: MaskRCNNError | None
    defect: str = ""  # the traceback of any other exception
    reason: str = ""  # why a result cannot be passed on


def processors() -> int:
    """The number of processes that can work at a time: 1 in a process that must not start others."""
    if multiprocessing.current_process().daemon:
        return 1
    return len(usable_cores())


def ordered_results(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    workers: int,
    then: Callable[[Result], Result] = lambda result: result,
    duty: Duty = LOADING,
) -> Generator[Result]:
    """The result of each item in order, computed by `workers` processes ahead of its use. `close` ends the processes.

    Args:
        function: called in the processes, with one thread of torch; where processes are not forked, it is pickled.
        then: called on each result in a thread of this process.
        duty: names the processes in messages.

    Raises:
        MaskRCNNError: the function raised it.
        TrainingError: a process was killed or stopped, or found no shared memory.
        RuntimeError: the function raised any other exception, whose traceback is the message.
    """
    started: list[_Worker] = []
    end = partial(_end, started)
    atexit.register(end)  # else Python would wait for them if this generator is never closed
    received: Queue[Any] = Queue()
    receiver = Thread(target=_receive, args=(started, received, then), daemon=True)
    try:
        for _ in range(workers):
            started.append(_start(function, started, duty))
        receiver.start()
        late = 0  # results that were asked for and not yet given
        for worker, item in zip(cycle(started), items):
            with suppress(OSError):  # a process that has ended: `_next` says so
                worker.pipe.send(item)
            late += 1
            if late == AHEAD * workers:
                yield _next(started, received, duty)
                late -= 1
        for _ in range(late):
            yield _next(started, received, duty)
    finally:
        end()
        if receiver.is_alive():
            receiver.join()
        atexit.unregister(end)


def _start(function: Callable[[Any], Any], started: Sequence[_Worker], duty: Duty) -> _Worker:
    context = multiprocessing.get_context()
    ours, theirs = context.Pipe()
    # A forked process inherits our ends of all pipes. It closes them, so that it sees the end of this process.
    inherited = [*(worker.pipe for worker in started), ours] if context.get_start_method() == "fork" else []
    process = context.Process(target=_serve, args=(function, theirs, inherited), daemon=True)
    try:
        with without_main():
            process.start()
    except OSError as error:
        raise _lost(duty, f"no process could be started ({error})") from None
    theirs.close()
    return _Worker(process, ours)


@contextmanager
def without_main() -> Iterator[None]:
    """Hides the user's script. A process that is not forked would run it anew, and a script that trains would train
    there, too, unless it asks for `__name__ == "__main__"`. Our processes need nothing of it."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _serve(function: Callable[[Any], Any], pipe: Connection, inherited: Sequence[Connection]) -> None:
    """The life of a worker process: it ends when the other end of its pipe is closed."""
    for other in inherited:
        other.close()
    for kind in STOP_SIGNALS:
        signal.signal(kind, signal.SIG_IGN)
    torch.set_num_threads(1)
    with suppress(EOFError, OSError):
        while True:
            answer = _answer(function, pipe.recv())
            pipe.send_bytes(answer)


def _answer(function: Callable[[Any], Any], item: Any) -> memoryview | bytes:
    try:
        result = function(item)
    except MaskRCNNError as error:
        return pickle.dumps(_Failure(error))
    except Exception:
        return pickle.dumps(_Failure(None, defect=traceback.format_exc()))
    try:
        packed: memoryview = ForkingPickler.dumps(result)  # moves tensors to shared memory
        return packed
    except (OSError, RuntimeError) as error:
        return pickle.dumps(_Failure(None, reason=f"it found no shared memory ({str(error).splitlines()[0]})"))


def _receive(workers: Sequence[_Worker], received: Queue[Any], then: Callable[[Any], Any]) -> None:
    """Puts the results into the queue. In a thread, because opening the tensors of a stopped process never returns."""
    try:
        for worker in cycle(workers):
            answer = worker.pipe.recv()
            received.put(answer if isinstance(answer, _Failure) else then(answer))
    except Exception as error:  # of any kind, because a thread that ends without an answer would be waited for
        worker.process.join(TICK)
        code = worker.process.exitcode
        reason = f"its result could not be read ({error})" if code is None else f"it ended with {exit_in_words(code)}"
        received.put(_Failure(None, reason=reason))


def _next(workers: Sequence[_Worker], received: Queue[Any], duty: Duty) -> Any:
    """The next result; raises as `ordered_results`."""
    waited = stopped = 0.0
    while True:
        with suppress(Empty):
            answer = received.get(timeout=TICK)
            break
        waited += TICK
        stopped = stopped + TICK if any(_is_stopped(worker.process) for worker in workers) else 0.0
        if stopped >= STOPPED:
            raise _lost(duty, "it was stopped (SIGSTOP)")
        if waited >= PATIENCE:
            raise _lost(duty, f"it gave no result for {PATIENCE:.0f} s")
    if not isinstance(answer, _Failure):
        return answer
    if answer.error is not None:
        raise answer.error
    if answer.defect:
        raise RuntimeError(f"in a process that {duty.does}: {answer.defect}")
    raise _lost(duty, answer.reason)


def _lost(duty: Duty, reason: str) -> TrainingError:
    return TrainingError(f"a process that {duty.does} is lost: {reason}; {duty.advice}")


def exit_in_words(code: int) -> str:
    """The exit code of a process in words."""
    if code >= 0:
        return f"exit code {code}"
    hints = {"SIGKILL": ", perhaps out of memory", "SIGBUS": ", perhaps without shared memory"}
    name = signal.Signals(-code).name
    return f"{name}{hints.get(name, '')}"


def _is_stopped(process: BaseProcess) -> bool:
    if not hasattr(os, "waitid") or process.pid is None:
        return False
    with suppress(ChildProcessError):
        return os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOHANG | os.WNOWAIT) is not None
    return False


def _end(workers: Sequence[_Worker]) -> None:
    for worker in workers:
        worker.process.kill()  # which also ends one that is stopped
    for worker in workers:
        worker.process.join()
        worker.pipe.close()
