"""A denoiser before a classifier that never saw noise, and classifiers that were trained with noise: finished runs.

The runs are made by the commands that the page ends with. This reads their rows, in seconds.
"""

import argparse
import math
from pathlib import Path

import numpy as np
from _common import DOCS, Row, markdown_table, write_markdown, write_rows

from srs.modes import short_title
from srs.report.finished_run import load_run
from srs.report.numbers import floored, percent, raised

#: The runs of a data set, of which some may be missing. The last two are what the others are compared with.
KINDS = ("clean", "denoised", "gaussian", "adversarial")
TRAINED = ("gaussian", "adversarial")
RULES = ("sigma-lp", "joint-lp")
EPSILONS = (0, 1, 2, 3, 4, 6, 8)  # of steps of 1/4


def measure(data: str, folders: dict[str, Path]) -> list[Row]:
    """Return one row for every run and every rule: constant levels, and levels with regions."""
    found = {kind: load_run(folders[kind]) for kind in KINDS if kind in folders}
    held = {kind: run.evaluate().rules for kind, run in found.items()}
    scores = {
        kind: {rule: np.where(row.correct, row.radius, 0.0) for rule, row in rules.items()}
        for kind, rules in held.items()
    }
    rows = []
    for kind, run in found.items():
        for rule, values in scores[kind].items():
            if not rule.startswith("sigma=") and rule not in RULES:
                continue
            low, high = run.summary["rules"][rule]["average_certified_radius_interval"]
            against = {other: values - scores[other][rule] for other in TRAINED}
            rows.append(
                {
                    "benchmark": "denoise",
                    "data": data,
                    "images": len(values),
                    "classifier": kind,
                    "rule": rule,
                    "n": run.settings.n,
                    "n0": run.settings.n0,
                    "average_certified_radius": float(values.mean()),
                    "interval": [low, high],
                    "share_of": {other: float(values.mean() / scores[other][rule].mean()) for other in TRAINED},
                    "difference": {other: float(less.mean()) for other, less in against.items()},
                    "error": {other: float(less.std(ddof=1) / math.sqrt(len(less))) for other, less in against.items()},
                    "abstentions": run.summary["rules"][rule]["abstentions"],
                    "certified_accuracy": run.summary["rules"][rule]["certified_accuracy"],
                    "clean_accuracy": run.summary["clean_accuracy_base"],
                }
            )
    return rows


def _best(rows: list[Row], kind: str) -> Row:
    """Return the constant level that is best for a classifier, by labels."""
    own = [row for row in rows if row["classifier"] == kind and row["rule"].startswith("sigma=")]
    return max(own, key=lambda row: float(row["average_certified_radius"]))


def radii(rows: list[Row]) -> str:
    """One line for each rule, one column for each classifier."""
    rules, kinds = (list(dict.fromkeys(row[name] for row in rows)) for name in ("rule", "classifier"))
    by = {(row["classifier"], row["rule"]): row for row in rows}
    lines = []
    for rule in rules:
        cells = [floored(by[kind, rule]["average_certified_radius"], 3) for kind in kinds]
        ratios = [floored(by["denoised", rule]["share_of"][other], 2) for other in TRAINED]
        lines.append([short_title(rule), *cells, *ratios])
    best = {kind: _best(rows, kind)["average_certified_radius"] for kind in kinds}
    lines.append(
        [
            "best constant level of each",
            *(floored(value, 3) for value in best.values()),
            *(floored(best["denoised"] / best[other], 2) for other in TRAINED),
        ]
    )
    return markdown_table(["ACR", *kinds, *(f"denoised / {other}" for other in TRAINED)], lines)


def curves(rows: list[Row]) -> str:
    """One line for each classifier, at joint levels."""
    lines = []
    for row in (row for row in rows if row["rule"] == "joint-lp"):
        low, high = row["interval"]
        lines.append(
            [
                row["classifier"],
                floored(row["average_certified_radius"], 3),
                raised((high - low) / 2, 3),
                *(f"{row['difference'][other]:+.3f} ({raised(row['error'][other], 3)})" for other in TRAINED),
                percent(row["clean_accuracy"]),
                *(percent(row["certified_accuracy"][e]) for e in EPSILONS if e < len(row["certified_accuracy"])),
            ]
        )
    header = ["joint", "ACR", "+-", *(f"less {other} (SE)" for other in TRAINED), "clean"]
    count = len(lines[0]) - len(header)
    return markdown_table([*header, *(f"{e / 4:.2f}" for e in EPSILONS[:count])], lines)


NOTE = """All classifiers of a table are the same network, trained on the same images, and certified on the same test
images with both bounds, alpha = 0.001 for each image. *clean*: never saw noise. *denoised*: the same weights
behind a denoiser (`unet_small`), trained to return the images, and finetuned to keep what the classifier says of them.
*gaussian*: trained with noise of random levels, then of each image's own; on MNIST its first stage alone.
*adversarial*: the same on adversarial examples (Smooth-Adv), which is this project's own method.

ACR: average certified radius, errors and abstentions counting 0, with half of its 95% interval over images.
Differences are paired over images, with their standard error. *clean* as a column: percent of test images that are
classified correctly without noise, behind the denoiser where there is one. Columns of numbers: percent of the
images that are classified correctly with a certified radius above that of the header. One seed.
"""

COMMANDS = """## The commands

```sh
srs-train digits --method gaussian --sigma 0 --m 1 --out runs/clean
srs-train digits-denoiser --checkpoint runs/clean/checkpoint.pt --out runs/denoised
srs-train digits --k 0 --out runs/gaussian
srs-train digits --out runs/adversarial
srs-certify --checkpoint runs/clean/checkpoint.pt --denoiser runs/denoised/checkpoint.pt --n0 200 --n 2000 \\
    --out runs/denoised/certified

srs-train mnist-quick --method gaussian --sigma 0 --m 1 --data-dir data --out runs/mnist-clean
srs-train mnist-denoiser --data-dir data --checkpoint runs/mnist-clean/checkpoint.pt --out runs/mnist-denoised
srs-train mnist-quick --k 0 --data-dir data --out runs/mnist-gaussian  # stopped after the first stage, 10 epochs
srs-train mnist-quick --data-dir data --out runs/mnist-adversarial
srs-certify --checkpoint runs/mnist-clean/checkpoint.pt --denoiser runs/mnist-denoised/checkpoint.pt --data-dir data \\
    --sigmas 0.25 0.5 0.75 1 --skip 40 --n0 200 --n 2000 --out runs/mnist-denoised/certified
```

The other runs are certified likewise, *clean*, *gaussian* and *adversarial* without `--denoiser`; on digits with
`--sigma-min 0.1 --sigma-max 0.6 --sigma-step 0.1`, which *clean* does not say.
"""


def main() -> None:
    """Write rows and page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    kinds = ", ".join(KINDS)
    parser.add_argument("runs", nargs="+", metavar="DATA:KIND=RUN", help=f"finished runs; KIND is one of {kinds}")
    folders: dict[str, dict[str, Path]] = {}
    for given in parser.parse_args().runs:
        name, _, folder = given.partition("=")
        data, _, kind = name.partition(":")
        folders.setdefault(data, {})[kind] = Path(folder)
    rows, parts = [], [NOTE]
    for data, named in folders.items():
        found = measure(data, named)
        rows += found
        head = f"## {data}, {found[0]['images']} test images, n0 = {found[0]['n0']}, n = {found[0]['n']:,}"
        parts.append(f"{head}\n\n{radii(found)}\n{curves(found)}")
    write_rows("denoise", rows)
    write_markdown("denoise", "A denoiser before a classifier that never saw noise", [*parts, COMMANDS], DOCS)


if __name__ == "__main__":
    main()
