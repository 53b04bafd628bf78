"""Daemons as forks of one process that has imported everything: a life costs milliseconds, and dies like any other."""

import gc
import os
import pickle
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

Answer = TypeVar("Answer")
One = TypeVar("One")


def in_child(work: Callable[[], Answer]) -> Answer | None:
    """Do the work in a child process: what it returned, or None when it was killed by SIGKILL.

    Raises:
        RuntimeError: It failed in another way, with its traceback.
    """
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        _be_child(work, writer)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        data = pipe.read()
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
        return None
    if not data:
        raise RuntimeError(f"the child ended with status {status} and said nothing")
    failed, answer = pickle.loads(data)
    if failed:
        raise RuntimeError(answer)
    return answer  # type: ignore[no-any-return]


def in_workers(cases: Sequence[One], work: Callable[[int, One], Answer], *, workers: int) -> list[Answer]:
    """Do the work for each case, in a few child processes side by side; the answers in the order of the cases.

    `work` gets the number of its process, from 0, and the case.

    Raises:
        RuntimeError: One of them failed, or was killed.
    """
    pipes: list[tuple[int, Any]] = []
    for number in range(workers):
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(reader)
            _be_child(lambda number=number: [work(number, case) for case in cases[number::workers]], writer)
        os.close(writer)
        pipes.append((pid, os.fdopen(reader, "rb")))
    answers: list[Any] = [None] * len(cases)
    for number, (pid, pipe) in enumerate(pipes):
        data = pipe.read()
        pipe.close()
        os.waitpid(pid, 0)
        failed, answer = pickle.loads(data) if data else (True, "a worker was killed")
        if failed:
            raise RuntimeError(answer)
        answers[number::workers] = answer
    return answers


def _be_child(work: Callable[[], Any], writer: int) -> None:
    """Never returns: nothing of the parent's stack, tests or exit handlers may run twice."""
    failed, answer = False, None
    gc.disable()  # a collection would copy every page of the parent
    try:
        answer = work()
    except BaseException:  # noqa: BLE001 - it is told to the parent
        failed, answer = True, traceback.format_exc()
    try:
        with os.fdopen(writer, "wb") as pipe:
            pickle.dump((failed, answer), pipe)
    finally:
        sys.stderr.flush()
        os._exit(0)


def memory_directory() -> Path | None:
    """A directory that costs no disk, if this host has one: hundreds of homes are made and removed."""
    shared = Path("/dev/shm")
    return shared if os.access(shared, os.W_OK) else None
