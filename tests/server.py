"""A process that has imported what our programs need, and copies itself for every program that a test runs.

Importing PyTorch takes seconds; copying a process that has takes none. The copy is a process as any other, with its own
memory, folder, open files, signals, exit handlers and exit code. `tests.programs.python` starts the server and asks.
"""

import gc
import importlib
import json
import os
import pkgutil
import signal
import socket
import sys

PACKAGES = ("regions", "smoothing", "training", "srs")
#: What our packages load where it is first needed; cvxpy, torchvision and Triton take seconds, and few need them.
LATER = (
    "accelerate", "faiss", "highspy", "joblib", "matplotlib.backends.backend_agg", "numba", "rich.progress",
    "safetensors.torch", "scipy.sparse.csgraph", "scipy.spatial", "sklearn.datasets", "sklearn.model_selection",
    "torch.utils.tensorboard",
)  # fmt: skip


def load() -> None:
    """Import what programs need."""
    for package in PACKAGES:
        for module in pkgutil.walk_packages(importlib.import_module(package).__path__, f"{package}."):
            if not module.name.endswith((".cvxpy", ".triton_kernels", ".triton_noise")):
                importlib.import_module(module.name)
    for name in LATER:
        importlib.import_module(name)
    gc.freeze()  # copies share this memory, and need not clear it away when they end
    threads = os.listdir("/proc/self/task") if os.path.isdir("/proc/self/task") else ["one"]
    if len(threads) > 1:
        raise SystemExit(f"{len(threads)} threads run after importing: a copy of this process would lack them")


def serve(requests: socket.socket) -> dict | None:
    """Copy this process for every request, and say which process it is and how it ended.

    Returns the request in the copy, and None where nobody asks any more.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # who asks decides when to stop
    while True:
        data, files, _, _ = socket.recv_fds(requests, 1 << 20, 2)
        if not data:
            return None
        pid = os.fork()
        if not pid:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            for number, file in zip((1, 2), files, strict=True):
                os.dup2(file, number)
                os.close(file)
            return json.loads(data)
        for file in files:
            os.close(file)
        requests.send(json.dumps(pid).encode())
        requests.send(json.dumps(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])).encode())


def run(request: dict) -> None:
    """Do what `python -c PROGRAM ARGUMENTS` does."""
    sys.stdout = sys.__stdout__ = os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.__stderr__ = os.fdopen(2, "w", buffering=1, errors="backslashreplace", closefd=False)
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.argv = ["-c", *request["arguments"]]
    sys.path[:0] = request["path"]
    exec(compile(request["program"], "<string>", "exec"), {"__name__": "__main__"})


if __name__ == "__main__":
    del sys.path[0]  # the folder of this file
    load()
    with socket.socket(fileno=int(sys.argv[1])) as asking:
        asked = serve(asking)
    if asked is not None:
        run(asked)
