"""Constant-sigma networks and their published logs as one sample-wise certified classifier.

Runs `srs-allocate --logs` on the logs of every model, and writes docs/results/experts.md. Needs SRS_DATA, and no
classifier: a few minutes on two cores.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from _common import (
    DOCS,
    Row,
    certification_logs,
    cifar10_test,
    data_folder,
    markdown_table,
    mnist_test,
    write_markdown,
    write_rows,
)

from srs.report.numbers import floored, percent, raised

#: The logs of each instance, and whether these are of one network for each level.
INSTANCES = {
    "cifar10 experts": ("0.12", "0.25", "0.5", "1.0"),
    "cifar10 catrs": ("0.25", "0.5", "1.0"),
    "cifar10 salman": ("0.25", "0.5", "1.0"),
    "cifar10 cohen": ("0.25", "0.5", "1.0"),
    "mnist catrs": ("0.25", "0.5", "1.0"),
}
RULES = ("anchor", "max-radius")
SHOWN = ("overlapping", "paper-lp", "sigma-lp", "joint-lp", "class-lp")
EPSILONS = (0, 1, 2, 4, 6, 8)  # of steps of 1/4
N, ALPHA = 100_000, 0.001  # of the logs


def command(instance: str, rule: str, images: str, logs: str, out: str) -> list[str]:
    """Return what a person types."""
    name = instance.replace(" ", "_")
    files = [f"{logs}/{name}_{sigma}.tsv" for sigma in INSTANCES[instance]]
    return [
        "srs-allocate", images, "--logs", *files, "--n", str(N), "--alpha", str(ALPHA), "--rule", rule,
        "--overlap", "sigma", "--out", out,
    ]  # fmt: skip


def measure(instance: str, rule: str, images: Path, folder: Path) -> list[Row]:
    """Return one row for every way to choose levels and size regions."""
    out = folder / f"{instance.replace(' ', '-')}-{rule}"
    words = command(instance, rule, str(images), str(data_folder() / "certify-logs"), str(out))
    program = "from srs.commands.allocate import main; main()"
    subprocess.run([sys.executable, "-c", program, *words[1:]], check=True, stdout=subprocess.DEVNULL)
    summary = json.loads((out / "summary.json").read_text())
    return [
        {
            "benchmark": "experts",
            "instance": instance,
            "rule": rule,
            "way": way,
            "images": summary["data"]["images"],
            "guarantee": summary["guarantee"],
            "average_certified_radius": found["average_certified_radius"],
            "interval": found["average_certified_radius_interval"],
            "abstentions": found["abstentions"],
            "certified_accuracy": found["certified_accuracy"],
        }
        for way, found in summary["rules"].items()
    ]


def table(rows: list[Row]) -> str:
    """One line for the best constant level, and for each way and rule."""
    constants = [row for row in rows if row["way"].startswith("sigma=")]
    best = max(constants, key=lambda row: row["average_certified_radius"])
    lines = [_line(best["way"].replace("=", " = "), "", best, best)]
    for way in SHOWN:
        for row in rows:
            if row["way"] == way:
                name = f"*{way}, proves nothing*" if way == "overlapping" else way.removesuffix("-lp")
                lines.append(_line(name, row["rule"], row, best))
    header = ["regions", "level by", "ACR", "+-", "over best constant", "abstain", *(f"{e / 4:.2f}" for e in EPSILONS)]
    return markdown_table(header, lines, words=2)


def _line(name: str, rule: str, row: Row, best: Row) -> list[str]:
    low, high = row["interval"]
    mean = row["average_certified_radius"]
    return [
        name,
        rule,
        floored(mean, 3),
        raised((high - low) / 2, 3),
        f"{mean / best['average_certified_radius']:.2f}",
        str(row["abstentions"]),
        *(percent(row["certified_accuracy"][e]) for e in EPSILONS),
    ]


NOTE = f"""Each instance is a set of published certification logs at constant noise levels, of the same 10,000 test
images: N = {N:,}, alpha = {ALPHA}, one-sided certificates. *cifar10 experts* are four different networks, one for each
level; the others are three networks of one method. Levels, regions and radii come from the logs and the distances of
the images alone; no classifier is run. CIFAR-10 images are JPEG copies (quality 75), so their distances differ slightly
from those of the original images.

- **alpha.** An image's level is picked by the same votes that certify it, so each certificate is made anew at alpha
  divided by the number of levels, from the fewest votes that explain the printed radius. *class* makes all hold at
  once.
- **What is transductive.** The 10,000 images were known, without labels, when regions were made. The classifier
  abstains on other images outside every region. The constant levels need nothing of the kind.
- **What was picked by whom.** The networks of *cifar10 experts* were picked by what their authors report, and not
  by looking for the best combination. The best constant level is picked by this table, with the labels, in favour
  of the constant levels.
- **level by**: *anchor* takes the largest radius among levels that agree in class with the smallest level that
  certifies one; *max-radius* among all (Eq. 7).

ACR: average certified radius, errors and abstentions counting 0, with half of its 95% interval over images. Columns
of numbers: percent of images that are classified correctly with a radius above that of the header.
"""


def main() -> None:
    """Measure every instance and write rows and page."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    data_folder()  # complain before any work
    rows, parts = [], []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = {"cifar10": folder / "cifar10.npy", "mnist": folder / "mnist.npy"}
        labels = certification_logs("cifar10", "catrs").label
        for dataset, points in (("cifar10", cifar10_test(labels)), ("mnist", mnist_test())):
            np.save(files[dataset], (points * 255).round().astype(np.uint8))
        for instance in INSTANCES:
            found = [row for rule in RULES for row in measure(instance, rule, files[instance.split()[0]], folder)]
            rows += found
            parts.append(f"## {instance}\n\n{table(found)}")
    example = " ".join(command("cifar10 experts", "anchor", "images.npy", '"$SRS_DATA"/certify-logs', "experts"))
    parts.append(
        f"## The command\n\n`images.npy` holds the test images as bytes, (10000, 3072).\n\n```sh\n{example}\n```\n"
    )
    write_rows("experts", rows)
    write_markdown("experts", "Constant-sigma networks as one classifier", [NOTE, *parts], DOCS)


if __name__ == "__main__":
    main()
