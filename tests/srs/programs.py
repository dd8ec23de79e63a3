"""Our commands as a person runs them: programs in a folder."""

import atexit
import functools
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

#: Flags of a run of a second: two levels, 60 images.
TINY = (
    "--checkpoint", "model.pt", "--dataset", "digits", "--sigma-min", "0.2", "--sigma-max", "0.4",
    "--sigma-step", "0.2",
    "--n0", "50", "--n", "300", "--skip", "3", "--max", "60", "--seed", "1",
)  # fmt: skip

#: Seconds after which a command hangs.
LIMIT = 300


def program(command: str) -> list[str]:
    """Return how to start one of our commands."""
    return [sys.executable, "-c", f"from srs.commands.{command} import main; main()"]


def call(command: str, folder: Path, *flags: object, installed: bool = False) -> subprocess.CompletedProcess[str]:
    """Run one of our commands in a folder, as a process of its own that need not import PyTorch first.

    `installed`: as the script that pip installs, for which the current folder is not where Python looks for modules.
    What depends on how Python starts (its flags, closed or full streams, kills) takes `program`.
    """
    request = {
        "command": command,
        "arguments": [str(flag) for flag in flags],
        "folder": str(folder),
        "environment": dict(os.environ),
        "path": [] if installed else [""],
    }
    asking = _server()
    with tempfile.TemporaryFile("w+") as stdout, tempfile.TemporaryFile("w+") as stderr:
        socket.send_fds(asking, [json.dumps(request).encode()], [stdout.fileno(), stderr.fileno()])
        pid = json.loads(asking.recv(100) or "null")
        assert pid, "the server of commands ended: see what it wrote to stderr"
        try:
            code = json.loads(asking.recv(100))
        except TimeoutError:
            os.kill(pid, signal.SIGKILL)
            asking.recv(100)
            raise subprocess.TimeoutExpired([command, *flags], LIMIT) from None
        for stream in (stdout, stderr):
            stream.seek(0)
        return subprocess.CompletedProcess([command, *flags], code, stdout.read(), stderr.read())


@functools.cache
def _server() -> socket.socket:
    """Start what `tests/srs/server.py` describes, once for this process and until it ends."""
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    file = Path(__file__).with_name("server.py")
    path = os.pathsep.join([str(file.parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])])
    with there:
        server = subprocess.Popen(
            [sys.executable, str(file), str(there.fileno())], stdin=subprocess.DEVNULL, pass_fds=[there.fileno()],
            env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
    here.settimeout(LIMIT)

    def stop() -> None:
        here.close()
        server.wait()

    atexit.register(stop)
    return here


def assert_refused(process: subprocess.CompletedProcess[str], command: str, message: str) -> None:
    """Bad input: exit code 2 and one line that says what to do."""
    assert process.returncode == 2, process.stderr
    assert message in process.stderr
    assert process.stderr.startswith(f"{command}: ")
    assert process.stderr.count("\n") == 1
    assert process.stdout == ""
