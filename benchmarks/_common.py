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
import re
import resource
import statistics
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

RESULTS = Path(__file__).parent / "results"
DOCS = Path(__file__).parent.parent / "docs" / "results"
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


def cifar10_files(part: str) -> dict[str, bytes]:
    """The JPEG files of CIFAR-10's "train" or "test" by name, PART/CLASS/NNNN.jpg."""
    files = {}
    with tarfile.open(data_folder() / "cifar10-jpeg.tar.gz") as tar:  # one pass: random access in gzip is slow
        for member in tar:
            file = tar.extractfile(member)  # None for a folder
            if file is not None and member.name.startswith(f"{part}/"):
                files[member.name] = file.read()
    return files


def decoded(jpeg: bytes) -> np.ndarray:
    """An image as 3072 values from 0 to 255."""
    from PIL import Image  # a dependency of matplotlib

    return np.asarray(Image.open(io.BytesIO(jpeg))).reshape(-1)


def cifar10_test(labels: np.ndarray) -> np.ndarray:
    """CIFAR-10 test images in the order of the original test set, (n, 3072) float64 in [0, 1].

    Inside a class the files are numbered in the original order, and `labels` says which class comes next.
    """
    files = cifar10_files("test")
    queues = {c: iter(sorted(f for f in files if f.split("/")[1] == c)) for c in CIFAR10}
    images = np.empty((len(labels), 3072), dtype=np.uint8)
    for k, label in enumerate(labels):
        images[k] = decoded(files[next(queues[CIFAR10[label]])])
    return images / 255.0


@dataclass(frozen=True)
class Logs:
    """What the certification logs of one model say at every sigma: radius 0 and class -1 where it abstains."""

    radius: np.ndarray  # (n, 3)
    predict: np.ndarray  # (n, 3)
    label: np.ndarray  # (n,)


def certification_logs(dataset: str, model: str) -> Logs:
    """Read the logs (`idx label predict radius correct time`) of one model at three sigmas."""
    files = [data_folder() / "certify-logs" / f"{dataset}_{model}_{sigma}.tsv" for sigma in SIGMAS]
    logs = np.stack([np.loadtxt(f, delimiter="\t", skiprows=1, usecols=(0, 1, 2, 3)) for f in files])
    idx, label, predict, radius = np.moveaxis(logs, 2, 0)
    if (idx != np.arange(idx.shape[1])).any() or (label != label[0]).any():
        raise ValueError(f"the logs of {dataset} {model} do not list the same images in the same order")
    radius = np.where(predict != -1, radius, 0.0)
    predict = np.where(radius > 0, predict, -1).astype(np.int64)
    return Logs(np.ascontiguousarray(radius.T), np.ascontiguousarray(predict.T), label[0].astype(np.int64))


@dataclass(frozen=True)
class Bounds:
    """R_j = the largest certified radius of the sigmas that do not abstain, 0 if none; with its sigma and class."""

    R: np.ndarray
    sigma: np.ndarray
    predict: np.ndarray
    label: np.ndarray

    @classmethod
    def best(cls, logs: Logs) -> Bounds:
        """Every image at the sigma of its largest radius; ties: the smallest sigma."""
        best = logs.radius.argmax(axis=1)
        pick = (np.arange(best.size), best)
        return cls(logs.radius[pick], np.array(SIGMAS, dtype=np.float64)[best], logs.predict[pick], logs.label)


def certified_bounds(dataset: str, model: str) -> Bounds:
    """The largest radius of every image in the logs of one model."""
    return Bounds.best(certification_logs(dataset, model))


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


def contest(
    contenders: Mapping[str, tuple[Callable[..., tuple[Run, Describe]], tuple[Any, ...]]],
    repeat: int,
    limit: float | None = None,
) -> Row:
    """Let contenders take turns, each in a process of its own, and return what each measured.

    Parameters
    ----------
    contenders : mapping of name to (prepare, arguments)
        prepare(*arguments) loads the data and returns (run, describe): `run` is timed, `describe` turns what it
        returned into JSON values and is not.
    repeat : int
        Timed rounds, after one round of warm-up that is reported as `first_call_seconds`.
    limit : float, default=None
        Seconds after which a call is given up: its process is killed and has no further turn.

    Returns
    -------
    dict of name to {seconds, first_call_seconds, peak_memory_mb, baseline_memory_mb, answer}
        `baseline_memory_mb` is the peak before the first run: libraries and data. A contender that failed has
        `failed`, a sentence, and an `answer` only if it has finished before.
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
                    if "failed" not in measured[name]:
                        _turn(*workers[name], measured[name], turn > 0, limit)
        finally:
            for ours, process in workers.values():
                ours.close()  # ends the worker's loop
                process.join(5)
                if process.is_alive():
                    process.terminate()
    return measured


def _turn(ours: Any, process: Any, row: Row, timed: bool, limit: float | None) -> None:
    """Let one contender run once, and write down what it measured."""
    ours.send("run")
    if not ours.poll(limit):
        process.kill()
        row["failed"] = f"did not finish in {limit:g} s"
        return
    try:
        found = ours.recv()
    except EOFError:
        found = "crashed"
    if isinstance(found, str):
        row["failed"] = found
        return
    seconds, peak, answer = found
    row.setdefault("first_call_seconds", seconds)
    row.setdefault("seconds", [])
    row.update(peak_memory_mb=peak, answer=answer)
    if timed:
        row["seconds"].append(seconds)


def _work(connection: Any, prepare: Callable[..., tuple[Run, Describe]], arguments: tuple[Any, ...]) -> None:
    run, describe = prepare(*arguments)
    connection.send(peak_memory())
    while True:
        try:
            connection.recv()
        except EOFError:
            return
        began = time.perf_counter()
        try:
            answer = run()
        except Exception as error:  # whatever a library raises: the others go on
            connection.send(f"{type(error).__name__}: {' '.join(str(error).split())}")
            continue
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
        **{library: found for library in LIBRARIES if (found := _version(library))},
    }


def _version(library: str) -> str | None:
    """The version of a library, if it is installed."""
    try:
        return version(library)
    except PackageNotFoundError:
        return None


def write_rows(name: str, rows: Sequence[Row]) -> None:
    """Write one JSON object a line into results/NAME.jsonl, each with its date and machine, or those of today."""
    RESULTS.mkdir(exist_ok=True)
    stamp = {"date": datetime.date.today().isoformat(), "machine": machine()}
    text = "".join(json.dumps(row if "date" in row else {**row, **stamp}) + "\n" for row in rows)
    (RESULTS / f"{name}.jsonl").write_text(text)


def write_markdown(name: str, title: str, parts: Sequence[str], folder: Path = RESULTS) -> None:
    """Write NAME.md into the folder: which command made it, on what hardware, then the parts; and print it.

    What a reader should conclude is written by hand, into the page, and stays: read it again after another run.
    """
    m = machine()
    command = " ".join(["SRS_DATA=... python", f"benchmarks/{Path(sys.argv[0]).name}", *sys.argv[1:]])
    versions = ", ".join(f"{library} {m[library]}" for library in LIBRARIES if library in m)
    file = f"{name}.jsonl"
    where = f"[{file}]({file})" if folder == RESULTS else f"`benchmarks/results/{file}`"
    head = (
        f"# {title}\n\nMade by `{command}` on {m['cores']} cores of an {m['cpu']} processor with Python {m['python']}, "
        f"{versions}. Every number is in {where}.\n"
    )
    text = "\n".join([head, *parts]).rstrip() + "\n"
    folder.mkdir(exist_ok=True)
    page = folder / f"{name}.md"
    before = page.read_text() if page.exists() else ""
    if conclusion := re.search(r"^\*\*What to conclude\.\*\*.*?\n\n", before, re.MULTILINE | re.DOTALL):
        text = text.replace("\n\n", f"\n\n{conclusion[0]}", 1)
    page.write_text(text)
    print(text)


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]], words: int = 1) -> str:
    """Write a Markdown table: the first columns, which hold words, to the left, and numbers to the right."""
    align = ["---"] * words + ["---:"] * (len(header) - words)
    return "".join("| " + " | ".join(line) + " |\n" for line in [header, align, *rows])
