#!/usr/bin/python3
"""Runs commands for one unprivileged user inside the namespace that `host/setup.sh` prepared (see host/README.md).

`broker.py serve SOCKET` is started there once, as that user. `broker.py run SOCKET COMMAND…` hands it a command with
the caller's directory, environment and standard streams, and ends as the command ends. The socket is 0600 and both
ends are the same user, so this gives nobody a right that they lacked. Standard library only: it runs before any venv.
"""

import array
import json
import os
import signal
import socket
import struct
import sys

REQUEST = struct.Struct("!I")  # length of the JSON that follows


def serve(path: str) -> None:
    """Fork for every request until killed."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    if os.path.exists(path):
        os.unlink(path)
    listener = socket.socket(socket.AF_UNIX)
    os.umask(0o077)
    listener.bind(path)
    os.umask(0o022)
    listener.listen(64)
    while True:
        try:
            connection, _ = listener.accept()
        except InterruptedError:
            continue
        if os.fork() == 0:
            listener.close()
            if os.fork() == 0:  # twice, so that init reaps it
                os._exit(answer(connection))
            os._exit(0)
        connection.close()
        os.wait()


def answer(connection: socket.socket) -> int:
    """One request: start the command, pass signals on, report how it ended."""
    fds = array.array("i")
    head, ancillary, _, _ = connection.recvmsg(REQUEST.size, socket.CMSG_LEN(3 * fds.itemsize))
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
    request = json.loads(read_exactly(connection, REQUEST.unpack(head)[0]))
    child = os.fork()
    if child == 0:
        run_command(connection, list(fds), request)
    for fd in fds:
        os.close(fd)
    watcher = os.fork()
    if watcher == 0:
        forward_signals(connection, child)
    _, status = os.waitpid(child, 0)
    os.kill(watcher, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(status)
    connection.sendall(bytes([code if code >= 0 else 128 - code]))
    return 0


def run_command(connection: socket.socket, fds: list[int], request: dict) -> None:
    """In the child: become the command; never returns."""
    connection.close()
    try:
        os.setsid()
        # The broker was started in the background, so it ignores these; a command must not.
        for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(number, signal.SIG_DFL)
        for target, fd in enumerate(fds):
            os.dup2(fd, target)
        os.closerange(3, 256)
        os.umask(request["umask"])
        try:
            os.chdir(request["directory"])
        except OSError as error:
            print(f"host/run: cannot enter {request['directory']}: {error.strerror}", file=sys.stderr, flush=True)
            os._exit(126)
        os.execvpe(request["argv"][0], request["argv"], request["environment"])
    except OSError as error:
        print(f"host/run: {request['argv'][0]}: {error.strerror}", file=sys.stderr, flush=True)
        os._exit(126 if isinstance(error, PermissionError) else 127)


def forward_signals(connection: socket.socket, child: int) -> None:
    """Each byte from the caller is a signal number; a caller that is gone hangs the command up."""
    while True:
        byte = connection.recv(1)
        number = byte[0] if byte else signal.SIGTERM
        try:
            os.killpg(child, number)
        except ProcessLookupError:
            os._exit(0)
        if not byte:
            os._exit(0)


def run(path: str, argv: list[str]) -> int:
    """Hand over a command and wait for it; its exit code (128 + n when signal n ended it)."""
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.connect(path)
    except OSError as error:
        print(f"host/run: {path}: {error.strerror}; as root, run host/setup.sh again", file=sys.stderr)
        return 125
    request = {"argv": argv, "directory": os.getcwd(), "environment": dict(os.environ), "umask": umask()}
    body = json.dumps(request).encode()
    streams = array.array("i", [0, 1, 2])
    connection.sendmsg([REQUEST.pack(len(body))], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, streams)])
    connection.sendall(body)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGWINCH):
        signal.signal(number, lambda received, _frame: connection.send(bytes([received])))
    code = connection.recv(1)
    return code[0] if code else 1


def umask() -> int:
    """The umask can only be read by setting it."""
    value = os.umask(0o077)
    os.umask(value)
    return value


def read_exactly(connection: socket.socket, size: int) -> bytes:
    """`size` bytes, or what there was before the other end closed."""
    data = b""
    while len(data) < size:
        chunk = connection.recv(size - len(data))
        if not chunk:
            break
        data += chunk
    return data


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(sys.argv[2])
    sys.exit(run(sys.argv[2], sys.argv[3:]))
