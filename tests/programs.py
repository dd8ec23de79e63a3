"""Programs that need what takes seconds to import, as processes of their own that need not import it."""

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

#: Keeps OpenBLAS, and pyarrow, which scikit-learn loads where it finds it, from starting threads when imported.
NO_THREADS = {"OPENBLAS_NUM_THREADS": "1", "JE_ARROW_MALLOC_CONF": "background_thread:false"}

#: Seconds after which a program hangs.
LIMIT = 300


def python(
    program: str, *arguments: object, folder: Path = Path(), installed: bool = False
) -> subprocess.CompletedProcess[str]:
    """Do what `python -c PROGRAM ARGUMENTS` does in a folder, with stdout and stderr in files.

    `installed`: the current folder is not where Python looks for modules, as for the scripts that pip installs.
    """
    request = {
        "program": program,
        "arguments": [str(argument) for argument in arguments],
        "folder": str(folder.absolute()),
        "environment": dict(os.environ),
        "path": [] if installed else [""],
    }
    asking = _server()
    with tempfile.TemporaryFile("w+") as stdout, tempfile.TemporaryFile("w+") as stderr:
        socket.send_fds(asking, [json.dumps(request).encode()], [stdout.fileno(), stderr.fileno()])
        pid = json.loads(asking.recv(100) or "null")
        assert pid, "the server of programs has ended: see what it wrote to stderr"
        try:
            code = json.loads(asking.recv(100))
        except TimeoutError:
            os.kill(pid, signal.SIGKILL)
            asking.recv(100)
            raise subprocess.TimeoutExpired([program, *arguments], LIMIT) from None
        for stream in (stdout, stderr):
            stream.seek(0)
        return subprocess.CompletedProcess([program, *arguments], code, stdout.read(), stderr.read())


@functools.cache
def _server() -> socket.socket:
    """Start what `tests/server.py` describes, once for this process and until it ends."""
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    file = Path(__file__).with_name("server.py")
    path = os.pathsep.join([str(file.parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])])
    with there:
        server = subprocess.Popen(
            [sys.executable, str(file), str(there.fileno())], stdin=subprocess.DEVNULL, pass_fds=[there.fileno()],
            env={**os.environ, "PYTHONPATH": path, **NO_THREADS},
        )  # fmt: skip
    here.settimeout(LIMIT)

    def stop() -> None:
        here.close()
        server.wait()

    atexit.register(stop)
    return here
