"""Memory of certifying images that do not fit into memory, of 3x224x224 pixels, made when they are read.

python benchmarks/streaming.py [--votes 50000] [--whole 2000]

Votes: `certify_to_file` with one noise level, so all that a data set needs but for regions. Whole: `srs-certify` with
two noise levels and joint regions, from an empty folder to the summary. The network averages pixels: what is measured
is what the toolkit holds beside a network. Each runs in a process of its own, whose anonymous memory (RssAnon of
/proc/PID/status: what is its own, and not a file's) is read every 50 ms.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from _common import DOCS, Row, markdown_table, write_markdown, write_rows
from torch import Tensor, nn
from torch.nn import functional

SHAPE = (3, 224, 224)
CLASSES = 10
_PAUSE = 0.05


class Generated:
    """So many 8-bit images of independent random pixels, made when they are read; image i has class i modulo 10."""

    num_classes = CLASSES

    def __init__(self, n: int) -> None:
        self.targets = [at % CLASSES for at in range(n)]

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, at: int) -> tuple[Tensor, int]:
        pixels = np.frombuffer(np.random.default_rng(at).bytes(int(np.prod(SHAPE))), np.uint8).reshape(SHAPE)
        return torch.from_numpy(pixels.copy()), self.targets[at]


class Pooled(nn.Module):
    """Averages over 56x56 pixels, and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(48, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits."""
        logits: Tensor = 1000 * self.layer(functional.avg_pool2d(images, 56).flatten(1) - 0.5)
        return logits


def generated(split: str) -> Generated:
    """Return the data set: as many images as the variable IMAGES says."""
    return Generated(int(os.environ["IMAGES"]))


def pooled(num_classes: int) -> nn.Module:
    """Return the network."""
    return Pooled()


def votes(out: Path) -> None:
    """Certify all images into one table: one selection and one estimation sample each."""
    from smoothing import SmoothedClassifier, certify_to_file
    from training import load_data

    data = load_data("streaming:generated", "data", train=False)
    torch.manual_seed(0)
    classifier = SmoothedClassifier(Pooled(), CLASSES, seed=0, device="cpu", batch_size=16)
    certify_to_file(
        out / "table.tsv", classifier, data.test_images, sigma=0.5, n0=1, n=1, alpha=0.1, labels=data.test_labels
    )


def whole(out: Path) -> None:
    """Certify all images with regions, by the command."""
    flags = ["--model", "streaming:pooled", "--dataset", "streaming:generated", "--sigmas", "0.25", "0.5"]
    flags += ["--n0", "1", "--n", "4", "--chosen-only", "--alpha", "0.1", "--batch", "16", "--device", "cpu"]
    flags += ["--out", str(out / "run")]
    sys.argv = ["srs-certify", *flags]
    from srs.commands.certify import main

    main()


def measure(part: str, images: int) -> Row:
    """Run a part in a process of its own and return what it took."""
    folder = Path(tempfile.mkdtemp(prefix="streaming-"))
    begun = time.perf_counter()
    here = str(Path(__file__).parent)
    environment = os.environ | {"IMAGES": str(images), "PYTHONPATH": f"{here}:{os.environ.get('PYTHONPATH', '')}"}
    command = [sys.executable, str(Path(__file__)), "--child", part, str(folder)]
    try:
        child = subprocess.Popen(command, env=environment, cwd=folder)
        most, disk = 0, 0
        while child.poll() is None:
            most = max(most, _anonymous(child.pid))
            disk = max(disk, sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()))
            time.sleep(_PAUSE)
        if child.returncode:
            raise SystemExit(f"{part} ended with {child.returncode}")
    finally:
        shutil.rmtree(folder)
    return {
        "part": part,
        "images": images,
        "shape": list(SHAPE),
        "float32_mb": round(images * float(np.prod(SHAPE)) * 4 / 1e6),
        "anonymous_mb": round(most / 1e6),
        "disk_mb": round(disk / 1e6),
        "seconds": round(time.perf_counter() - begun),
    }


def _anonymous(pid: int) -> int:
    """Return the bytes of memory of a process that no file backs; 0 where it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon:")), 0)


def report(rows: list[Row]) -> None:
    """Write the table."""
    names = {"votes": "`certify_to_file`, one level", "whole": "`srs-certify`, two levels, joint regions"}
    header = ["what", "images", "as float32, GB", "anonymous memory, GB", "on the disk, GB", "s"]
    lines = [
        [
            names[row["part"]],
            f"{row['images']:,}",
            *(f"{row[name] / 1000:.2f}" for name in ("float32_mb", "anonymous_mb", "disk_mb")),
            f"{row['seconds']:,}",
        ]
        for row in rows
    ]
    write_markdown("streaming", "Memory of a run over images that do not fit", [markdown_table(header, lines)], DOCS)


def main() -> None:
    """Measure, write the rows and the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--votes", type=int, nargs="*", default=[50_000], help="numbers of images; none: leave it out")
    parser.add_argument("--whole", type=int, nargs="*", default=[2_000], help="numbers of images; none: leave it out")
    parser.add_argument("--child", nargs=2, metavar=("PART", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        {"votes": votes, "whole": whole}[options.child[0]](Path(options.child[1]))
        return
    jobs = [("votes", n) for n in options.votes] + [("whole", n) for n in options.whole]
    rows = [measure(part, n) for part, n in jobs]
    print(json.dumps(rows))
    write_rows("streaming", rows)
    report(rows)


if __name__ == "__main__":
    main()
