"""The command `gapbench` without its start: a process with all imports is forked for each command.

    python -m tests.docs.warm SOCKET           the process; ends when its standard input ends
    python -IS tests/docs/warm.py SOCKET ...   one command, with this process's files and signals

Pages of the docs are a hundred commands, whose imports took longer than what the commands do.
"""

import array
import atexit
import contextlib
import importlib
import json
import os
import select
import shutil
import signal
import socket
import sys
import traceback

IMPORTED = (
    "gapbench.__main__", "gapbench.report.build", "gapbench.study", "gapbench.training.setup",
    "matplotlib.pyplot", "pandas", "seaborn", "torch.export",
)  # fmt: skip
FORWARDED = (signal.SIGINT, signal.SIGTERM)


def command(path: str, words: list[str]) -> int:
    """Have a command run by the process behind `path`; return its exit code."""
    request = {"words": words, "cwd": os.getcwd(), "env": dict(os.environ)}
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)
        files = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0, 1, 2]))]
        connection.sendmsg([b"files"], files)
        connection.sendall(json.dumps(request).encode() + b"\n")
        answers = connection.makefile()
        pid = int(answers.readline())
        for number in FORWARDED:
            signal.signal(number, lambda number, _: os.kill(pid, number))
        return int(answers.readline())


def serve(path: str) -> None:
    """Import everything, and fork for each command until standard input ends."""
    for name in IMPORTED:
        importlib.import_module(name)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(f"{path}.new")
        server.listen()
        os.rename(f"{path}.new", path)
        while sys.stdin not in select.select([server, sys.stdin], [], [])[0]:
            connection, _ = server.accept()
            if os.fork() == 0:
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                server.close()
                _answer(connection)
                os._exit(0)
            connection.close()
    shutil.rmtree(os.path.dirname(path), ignore_errors=True)


def _answer(connection: socket.socket) -> None:
    """Fork the command's own process, and tell its number and its end."""
    _, files, _, _ = socket.recv_fds(connection, 5, 3)
    request = json.loads(connection.makefile().readline())
    pid = os.fork()
    if pid == 0:
        connection.close()
        _become(request, files)
    for file in files:
        os.close(file)
    connection.sendall(f"{pid}\n".encode())
    done, status = 0, 0
    while not done:
        done, status = os.waitpid(pid, os.WNOHANG)
        if not done and select.select([connection], [], [], 0.02)[0]:  # the caller was killed
            os.kill(pid, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(status)
    with contextlib.suppress(OSError):
        connection.sendall(f"{code if code >= 0 else 128 - code}\n".encode())


def _become(request: dict, files: list[int]) -> None:
    """Be the command, as the program `gapbench` would be in its caller's place."""
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    sys.argv = ["gapbench", *request["words"]]
    sys.stdin = os.fdopen(0, closefd=False)
    sys.stdout = os.fdopen(1, "w", closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, errors="backslashreplace", closefd=False)
    code = 1
    try:
        from gapbench.__main__ import main

        code = main()
    except BaseException:
        traceback.print_exc()
    atexit._run_exitfuncs()
    for output in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):
            output.flush()
    os._exit(code)


if __name__ == "__main__":
    if len(sys.argv) == 2:
        serve(sys.argv[1])
    else:
        sys.exit(command(sys.argv[1], sys.argv[2:]))
