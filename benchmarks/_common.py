"""What the benchmarks share: real data, contests between processes, and rows of results.

Data comes from the folder that SRS_DATA names; every contender runs in a process of its own, so that its peak memory is
its own, and contenders take turns, so that a busy machine slows all of them alike.
"""

from __future__ import annotations

import datetime
import io
import json
import multiprocessing
import os
import platform
import resource
import statistics
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

RESULTS = Path(__file__).parent / "results"
SIGMAS = ("0.25", "0.5", "1.0")
CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
LIBRARIES = ("numpy", "scipy", "faiss-cpu", "highspy", "cvxpy", "numba", "torch")

Row = dict[str, Any]
Run = Callable[[], Any]
Describe = Callable[[Any], Row]


# --- data ---------------------------------------------------------------------------------------------------------


def data_folder() -> Path:
    """Return the folder that SRS_DATA names, or exit with one line."""
    folder = os.environ.get("SRS_DATA")
    if not folder or not Path(folder).is_dir():
        raise SystemExit("set SRS_DATA to the folder that holds MNIST/raw, certify-logs and cifar10-jpeg.tar.gz")
    return Path(folder)


def mnist_test() -> np.ndarray:
    """MNIST test images, (10000, 784) float64 in [0, 1]."""
    raw = (data_folder() / "MNIST" / "raw" / "t10k-images-idx3-ubyte").read_bytes()
    shape = tuple(np.frombuffer(raw, ">i4", count=3, offset=4))
    return np.frombuffer(raw, np.uint8, offset=16).reshape(shape[0], -1) / 255.0


def cifar10_test(labels: np.ndarray) -> np.ndarray:
    """CIFAR-10 test images in the order of the original test set, (n, 3072) float64 in [0, 1].

    Inside a class the files are numbered in the original order, and `labels` says which class comes next.
    """
    from PIL import Image  # a dependency of matplotlib

    with tarfile.open(data_folder() / "cifar10-jpeg.tar.gz") as tar:  # one pass: random access in gzip is slow
        files = {m.name: tar.extractfile(m).read() for m in tar if m.isfile() and m.name.startswith("test/")}
    queues = {c: iter(sorted(f for f in files if f.split("/")[1] == c)) for c in CIFAR10}
    images = np.empty((len(labels), 3072), dtype=np.uint8)
    for k, label in enumerate(labels):
        images[k] = np.asarray(Image.open(io.BytesIO(files[next(queues[CIFAR10[label]])]))).reshape(-1)
    return images / 255.0


@dataclass(frozen=True)
class Bounds:
    """R_j = the largest certified radius of the sigmas that do not abstain, 0 if none; with its sigma and class."""

    R: np.ndarray
    sigma: np.ndarray
    predict: np.ndarray
    label: np.ndarray


def certified_bounds(dataset: str, model: str) -> Bounds:
    """Combine the certification logs (`idx label predict radius correct time`) of one model at three sigmas."""
    files = [data_folder() / "certify-logs" / f"{dataset}_{model}_{sigma}.tsv" for sigma in SIGMAS]
    logs = np.stack([np.loadtxt(f, delimiter="\t", skiprows=1, usecols=(0, 1, 2, 3)) for f in files])
    idx, label, predict, radius = np.moveaxis(logs, 2, 0)
    if (idx != np.arange(idx.shape[1])).any() or (label != label[0]).any():
        raise ValueError(f"the logs of {dataset} {model} do not list the same images in the same order")
    radius = np.where(predict != -1, radius, 0.0)
    best = radius.argmax(axis=0)  # ties: the smallest sigma
    pick = (best, np.arange(best.size))
    return Bounds(
        R=radius[pick],
        sigma=np.array(SIGMAS, dtype=np.float64)[best],
        predict=np.where(radius[pick] > 0, predict[pick], -1).astype(np.int64),
        label=label[0].astype(np.int64),
    )


def load(dataset: str, model: str) -> tuple[np.ndarray, Bounds]:
    """Test images as points, and their certified bounds."""
    bounds = certified_bounds(dataset, model)
    points = mnist_test() if dataset == "mnist" else cifar10_test(bounds.label)
    return points, bounds


# --- contests -----------------------------------------------------------------------------------------------------


def apart(function: Callable[..., None], *arguments: Any) -> None:
    """Call the function in a process of its own, so that its memory is not counted here."""
    process = multiprocessing.get_context("spawn").Process(target=function, args=arguments)
    process.start()
    process.join()
    if process.exitcode:
        raise SystemExit(f"{function.__name__} failed, see above")


def peak_memory() -> float:
    """Largest resident set of this process so far, in MB (10^6 bytes)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6  # Linux counts KiB


def contest(contenders: Mapping[str, tuple[Callable[..., tuple[Run, Describe]], tuple[Any, ...]]], repeat: int) -> Row:
    """Let contenders take turns, each in a process of its own, and return what each measured.

    Parameters
    ----------
    contenders : mapping of name to (prepare, arguments)
        prepare(*arguments) loads the data and returns (run, describe): `run` is timed, `describe` turns what it
        returned into JSON values and is not.
    repeat : int
        Timed rounds, after one round of warm-up that is reported as `first_call_seconds`.

    Returns
    -------
    dict of name to {seconds, first_call_seconds, peak_memory_mb, baseline_memory_mb, answer}
        `baseline_memory_mb` is the peak before the first run: libraries and data.
    """
    # numba compiles afresh, so that the first call is what a new user waits for
    with tempfile.TemporaryDirectory() as cache:
        os.environ["NUMBA_CACHE_DIR"] = cache
        context = multiprocessing.get_context("spawn")
        workers = {}
        for name, (prepare, arguments) in contenders.items():
            ours, theirs = context.Pipe()
            process = context.Process(target=_work, args=(theirs, prepare, arguments), daemon=True)
            process.start()
            theirs.close()
            workers[name] = (ours, process)
        try:
            measured: Row = {name: {"baseline_memory_mb": ours.recv()} for name, (ours, _) in workers.items()}
            names = list(workers)
            for turn in range(repeat + 1):
                shift = turn % len(names)  # nobody always follows the same contender
                for name in names[shift:] + names[:shift]:
                    ours = workers[name][0]
                    ours.send("run")
                    seconds, peak, answer = ours.recv()
                    row = measured[name]
                    row.setdefault("first_call_seconds", seconds)
                    row.setdefault("seconds", [])
                    row["peak_memory_mb"] = peak
                    row["answer"] = answer
                    if turn:
                        row["seconds"].append(seconds)
        finally:
            for ours, process in workers.values():
                ours.close()  # ends the worker's loop
                process.join(5)
                if process.is_alive():
                    process.terminate()
    return measured


def _work(connection: Any, prepare: Callable[..., tuple[Run, Describe]], arguments: tuple[Any, ...]) -> None:
    run, describe = prepare(*arguments)
    connection.send(peak_memory())
    while True:
        try:
            connection.recv()
        except EOFError:
            return
        began = time.perf_counter()
        answer = run()
        seconds = time.perf_counter() - began
        connection.send((seconds, peak_memory(), describe(answer)))


def spread(values: Sequence[float]) -> Row:
    """Smallest, median and largest."""
    return {"min": min(values), "median": statistics.median(values), "max": max(values)}


def ratio(other: Row, ours: Row) -> Row:
    """How many times longer `other` took: ratio of medians, and the extremes of the ratios turn by turn."""
    turns = [a / b for a, b in zip(other["seconds"], ours["seconds"], strict=True)]
    medians = statistics.median(other["seconds"]) / statistics.median(ours["seconds"])
    return {"min": min(turns), "of_medians": medians, "max": max(turns)}


# --- results ------------------------------------------------------------------------------------------------------


def machine() -> Row:
    """Describe the hardware and the libraries, without names or paths."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = dict(line.split(":", 1) for line in info.read_text().split("\n\n")[0].splitlines() if ":" in line)
        cpu = {key.strip(): value.strip() for key, value in lines.items()}.get("model name", cpu)
    return {
        "cpu": cpu,
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "python": platform.python_version(),
        **{library: version(library) for library in LIBRARIES},
    }


def write_rows(name: str, rows: Sequence[Row]) -> None:
    """Write one JSON object a line into results/NAME.jsonl, each with the date and the machine."""
    RESULTS.mkdir(exist_ok=True)
    stamp = {"date": datetime.date.today().isoformat(), "machine": machine()}
    text = "".join(json.dumps({**row, **stamp}) + "\n" for row in rows)
    (RESULTS / f"{name}.jsonl").write_text(text)


def write_markdown(name: str, title: str, parts: Sequence[str], folder: Path = RESULTS) -> None:
    """Write NAME.md into the folder: which command made it, on what hardware, then the parts; and print it."""
    m = machine()
    command = " ".join(["SRS_DATA=... python", f"benchmarks/{Path(sys.argv[0]).name}", *sys.argv[1:]])
    versions = ", ".join(f"{library} {m[library]}" for library in LIBRARIES)
    file = f"{name}.jsonl"
    where = f"[{file}]({file})" if folder == RESULTS else f"`benchmarks/results/{file}`"
    head = (
        f"# {title}\n\nMade by `{command}` on {m['cores']} cores of an {m['cpu']} processor with Python {m['python']}, "
        f"{versions}. Every number is in {where}.\n"
    )
    text = "\n".join([head, *parts]).rstrip() + "\n"
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.md").write_text(text)
    print(text)


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]], words: int = 1) -> str:
    """Write a Markdown table: the first columns, which hold words, to the left, and numbers to the right."""
    align = ["---"] * words + ["---:"] * (len(header) - words)
    return "".join("| " + " | ".join(line) + " |\n" for line in [header, align, *rows])
