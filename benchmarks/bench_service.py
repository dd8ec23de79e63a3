"""What a loaded run costs: `srs.load_run`, its answers, and the same over HTTP through `examples/service.py`.

python benchmarks/bench_service.py RUN [--repeats 200]

RUN is the folder of a finished run whose images come with it, such as the demonstration's. Loading is timed in fresh
processes, after `srs.load_run` was imported; answers in this one, 1 image at a time and 100 together.
"""

from __future__ import annotations

import argparse
import io
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np
import uvicorn
from _common import Row, markdown_table, peak_memory, write_markdown, write_rows

import srs

EXAMPLES = Path(__file__).parent.parent / "examples"
LOADS = 5

_LOAD = """
import sys, time, resource
import srs
began = time.perf_counter()
srs.load_run
imported = time.perf_counter()
srs.load_run(sys.argv[1])
print(imported - began, time.perf_counter() - imported, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6)
"""


def loads(run: Path) -> Iterator[Row]:
    """Time imports and loads in processes of their own."""
    found = []
    for _ in range(LOADS):
        process = subprocess.run([sys.executable, "-c", _LOAD, run], capture_output=True, text=True, check=True)
        found.append([float(number) for number in process.stdout.split()])
    seconds_import, seconds_load, megabytes = zip(*found, strict=True)
    for what, values in (("import", seconds_import), ("load", seconds_load)):
        yield {"what": what, "ms": spread([1000 * value for value in values]), "memory_mb": max(megabytes)}


def spread(ms: list[float]) -> Row:
    """Return median and 99th percentile."""
    return {"p50": statistics.median(ms), "p99": float(np.percentile(ms, 99)), "repeats": len(ms)}


def timed(what: str, ask: Callable[[int], object], repeats: int) -> Row:
    """Time questions one after the other; the first few, which settle the size of batches, do not count."""
    ms = []
    for k in range(5 + repeats):
        began = time.perf_counter()
        ask(k)
        ms.append(1000 * (time.perf_counter() - began))
    return {"what": what, "ms": spread(ms[5:]), "memory_mb": peak_memory()}


@contextmanager
def service(run: Path) -> Iterator[httpx.Client]:
    """Serve a run from this process, and give a client."""
    os.environ["SRS_RUN"] = str(run)
    sys.path.insert(0, str(EXAMPLES))
    from service import create_app

    server = uvicorn.Server(uvicorn.Config(create_app(), port=0, log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=600) as client:
            yield client
    finally:
        server.should_exit = True
        thread.join()


def body(images: np.ndarray) -> bytes:
    """Return images as a .npy file."""
    stream = io.BytesIO()
    np.save(stream, images)
    return stream.getvalue()


def answers(run: Path, repeats: int) -> Iterator[Row]:
    """Time answers, called and over HTTP."""
    G = srs.load_run(run)
    images = G.regions.centres.astype(np.float32).reshape(-1, *G.shape)
    first = np.resize(images, (100, *G.shape))

    def one(k: int) -> np.ndarray:
        return images[[k % len(images)]]

    def post(asked: str, what: np.ndarray) -> None:
        client.post(asked, content=body(what), params={"n": 1000}).raise_for_status()

    yield timed("predict, 1 image, n = 1000", lambda k: G.predict(one(k)), repeats)
    yield timed("certify, 1 image, n = 1000, n0 = 1000", lambda k: G.certify(one(k), n=1000), repeats)
    yield timed("predict, 100 images, n = 1000", lambda k: G.predict(first), repeats // 5)
    with service(run) as client:
        yield timed("predict over HTTP, 1 image, n = 1000", lambda k: post("/predict", one(k)), repeats)
        yield timed("certify over HTTP, 1 image, n = 1000", lambda k: post("/certify", one(k)), repeats)
        yield timed("predict over HTTP, 100 images, n = 1000", lambda k: post("/predict", first), repeats // 5)


def main() -> None:
    """Measure, and write rows and table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("run", type=Path)
    parser.add_argument("--repeats", type=int, default=200)
    given = parser.parse_args()
    rows = [{"benchmark": "service", **row} for row in (*loads(given.run), *answers(given.run, given.repeats))]
    write_rows("service", rows)
    table = [
        [row["what"], f"{row['ms']['p50']:.1f}", f"{row['ms']['p99']:.1f}", f"{row['memory_mb']:.0f}"] for row in rows
    ]
    header = ["what", "p50, ms", "p99, ms", "memory so far, MB"]
    write_markdown("service", "A run as a service", [markdown_table(header, table)])


if __name__ == "__main__":
    main()
