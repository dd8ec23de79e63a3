"""Processes that insert into one file at once, and are killed: a program of its own, because it forks.

python online_workers.py FILE GROUPS hammer PROCESSES POINTS
python online_workers.py FILE GROUPS kill ROUNDS SEED

Prints one JSON line for every arrival that `insert` returned: what was acknowledged must be in the file.
"""

import json
import os
import random
import select
import signal
import sys
import tempfile
import time

import numpy as np

from regions import OnlineAllocator

DIMENSION = 3
SIGMAS = (0.25, 0.5, 1.0)


def work(path, groups, seed, points, out):
    """Insert points of few clusters, so that nearly all are near each other, and write down what was returned."""
    rng = np.random.default_rng(seed)
    with OnlineAllocator(path, DIMENSION, groups=groups, synchronous="normal") as online:
        for _ in range(points):
            x = rng.integers(3, size=DIMENSION) + 0.2 * rng.standard_normal(DIMENSION)
            own, R = float(rng.choice(SIGMAS)), float(rng.exponential(0.3))
            arrival = online.arrive(x, lambda sigma, own=own, R=R: (own if sigma is None else sigma, R, 1))
            line = {"point": [v.hex() for v in x.tolist()], "R": R.hex(), **vars(arrival)}
            os.write(out, (json.dumps({**line, "radius": arrival.radius.hex()}) + "\n").encode())


def start(*arguments):
    """Fork a worker; return its process id and what it writes to."""
    read, write = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.close(read)
            work(*arguments, write)
            os._exit(0)
        except BaseException as error:
            print(f"worker failed: {error!r}", file=sys.stderr, flush=True)
            os._exit(1)
    os.close(write)
    return child, read


def collect(workers, lines=None, delay=0.0):
    """Read what the workers write until they end; once there are so many `lines`, wait for `delay` and kill them."""
    pipes = {read: b"" for _, read in workers}
    done = []
    while pipes:
        if lines is not None and sum(text.count(b"\n") for text in [*pipes.values(), *done]) >= lines:
            time.sleep(delay)
            for child, _ in workers:
                os.kill(child, signal.SIGKILL)
            lines = None
        for read in select.select(list(pipes), [], [])[0]:
            part = os.read(read, 1 << 16)
            pipes[read] += part
            if not part:
                done.append(pipes.pop(read))
                os.close(read)
    codes = {os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child, _ in workers}
    if codes - {0, -signal.SIGKILL}:
        raise SystemExit("a worker failed")
    for text in done:
        sys.stdout.write(text[: text.rfind(b"\n") + 1].decode())


def load_everything():
    """Once, before forking: libraries and compiled loops."""
    with tempfile.TemporaryDirectory() as folder, OnlineAllocator(f"{folder}/regions.db", 1) as online:
        online.insert([0.0], 0.5, 1.0)
        online.insert([1.5], 0.5, 1.0)


def main(path, groups, mode, first, second):
    load_everything()
    if mode == "hammer":
        collect([start(path, groups, seed, second) for seed in range(first)])
        return
    chance = random.Random(second)
    for k in range(first):
        workers = [start(path, groups, 1000 * k + worker, 10**6) for worker in range(2)]
        collect(workers, lines=chance.randrange(12), delay=chance.choice([0.0, chance.uniform(0.0, 0.01)]))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5]))
