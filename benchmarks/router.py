"""What a router certifies, and what regions do beside it: the page of finished runs of `srs-certify --router`.

The runs are made by the commands that the page ends with. This reads their summaries and rows, in seconds.
"""

import argparse
from pathlib import Path

from _common import DOCS, Row, markdown_table, write_markdown, write_rows

from srs.modes import OVERLAPPING, short_title
from srs.report.assumptions import assumptions
from srs.report.finished_run import load_run
from srs.report.numbers import floored, percent, raised

EPSILONS = (0, 2, 4, 6, 8)  # of steps of 1/4


def measure(name: str, folder: Path) -> list[Row]:
    """Return one row for every rule of a run."""
    run = load_run(folder)
    results, summary = run.evaluate(), run.summary
    kinds = {one.title: one for one in assumptions(results, run.settings)}
    rows = []
    for rule, title in zip((one for one in results.rules if one != OVERLAPPING), kinds, strict=True):
        found = summary["rules"][rule]
        rows.append(
            {
                "benchmark": "router",
                "data": name,
                "images": summary["data"]["images"],
                "rule": rule,
                "kind": kinds[title].kind,
                "samples": kinds[title].samples,
                "average_certified_radius": found["average_certified_radius"],
                "interval": found["average_certified_radius_interval"],
                "abstentions": found["abstentions"],
                "certified_accuracy": found["certified_accuracy"],
            }
        )
    return rows


def table(rows: list[Row]) -> str:
    """One line for each rule but the greedy orders."""
    lines = []
    for row in rows:
        if row["rule"] in ("paper-ascending", "paper-descending"):
            continue
        low, high = row["interval"]
        lines.append(
            [
                short_title(row["rule"]),
                row["kind"].partition(",")[0],
                floored(row["average_certified_radius"], 3),
                raised((high - low) / 2, 3),
                str(row["abstentions"]),
                f"{row['samples']:,}",
                *(percent(row["certified_accuracy"][e]) for e in EPSILONS),
            ]
        )
    header = ["rule", "kind", "ACR", "+-", "abstain", "passes", *(f"{e / 4:.2f}" for e in EPSILONS)]
    return markdown_table(header, lines, words=2)


NOTE = """All rules of a table come from the same votes, with both bounds; alpha = 0.001 for each image, with `class`
for all at once. The routers are asked although held-out training images did not show them to be better than
one level (`--router-always`); without that flag one level would answer, and both rows of the router would
be those of a constant sigma. Passes: of the networks, for an image, if no other rule is asked for. Columns
of numbers: percent of the images that are classified correctly with a certified radius above that of the
header.
"""

COMMANDS = """## The commands

```sh
srs-train digits --out runs/base
srs-train digits-router --checkpoint runs/base/checkpoint.pt --router-loss best-level --out runs/router
srs-certify --checkpoint runs/base/checkpoint.pt --router runs/router/checkpoint.pt --router-always --out runs/both

srs-train mnist-quick --data-dir data --download --out runs/mnist
srs-train mnist-router --data-dir data --checkpoint runs/mnist/checkpoint.pt --out runs/mnist-router \\
    --sigmas 0.2 0.4 0.6 0.8 1 --train-images 10000 --validation-images 1000
srs-certify --checkpoint runs/mnist/checkpoint.pt --router runs/mnist-router/checkpoint.pt --router-always \\
    --data-dir data --skip 20 --out runs/mnist-both
```
"""


def main() -> None:
    """Write rows and page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", metavar="NAME=RUN", help="finished runs, named by their data")
    rows, parts = [], [NOTE]
    for given in parser.parse_args().runs:
        name, _, folder = given.partition("=")
        found = measure(name, Path(folder))
        rows += found
        parts.append(f"## {name}, {found[0]['images']} test images\n\n{table(found)}")
    write_rows("router", rows)
    write_markdown("router", "A router, regions, and both", [*parts, COMMANDS], DOCS)


if __name__ == "__main__":
    main()
