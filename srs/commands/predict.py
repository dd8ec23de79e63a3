"""`srs-predict`: classify new images with the region map that a run made, G(x) of Eq. 9."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

from srs.commands._cli import naming_flags, needing, one_line_errors, one_line_warnings, parse, printing
from srs.commands._config import find_in_current_folder
from srs.limits import named_outside
from srs.predict.settings import PredictSettings

if TYPE_CHECKING:
    import numpy as np

    from srs.predict.opening import Opened
    from srs.predict.predictor import Answers

_DESCRIPTION = """Classify images by G (Eq. 9): the region that holds an image says with which sigma to vote.

RUN is the folder of a finished srs-certify run, which knows its classifier; it is refused if its weights changed. A
region map alone (regions.npz) needs --checkpoint or --expert. Images are PNG or JPEG files, arrays .npy of one or many
images (8-bit, or floats in [0, 1]), or test:INDEX, an image of the run's own test set. Nothing is written and regions
stay as they are, unless --online registers the images."""


@printing("srs-predict")
@needing("certify", "srs-predict")
def main() -> None:
    """Run the command; exit code 2 and one line on stderr where something cannot be used."""
    settings = parse(PredictSettings, "srs-predict", _DESCRIPTION)
    kept = "nothing was written" if settings.online is None else "images registered so far stay registered"
    with one_line_errors("srs-predict", kept), one_line_warnings("srs-predict"), naming_flags(PredictSettings):
        predict(settings)


def predict(settings: PredictSettings) -> None:
    """Load map and classifier, read the images, answer, print."""
    settings.check()

    find_in_current_folder(settings.model, settings.arch, settings.dataset)

    from srs.predict.opening import open_map, open_run  # after the check: PyTorch takes seconds to import

    n, n0, created = settings.samples, settings.n0, None
    opened: Opened
    if settings.online is not None:
        opened = run = open_run(settings)
        arrivals = run.register(run.query.images, settings.online, n=n, n0=n0)
        answers, created = arrivals.answers, arrivals.created
    else:
        opened = (open_map if settings.run.suffix == ".npz" else open_run)(settings)
        ask = opened.certify if settings.certify else opened.predict
        answers = ask(opened.query.images, n=n, n0=n0)
    rows = _rows(opened, answers, created, settings)
    if settings.json:
        for row in rows:
            sys.stdout.write(json.dumps(row) + "\n")
    else:
        _print(rows, 0 if answers.cut is None else int(answers.cut.sum()), opened.outside, settings)


def _rows(
    opened: Opened, answers: Answers, created: np.ndarray | None, settings: PredictSettings
) -> list[dict[str, Any]]:
    """Return what is known of every image; radii rounded down, None where there is nothing to say."""
    from smoothing.tables import floor_text

    rows = []
    for k, name in enumerate(opened.query.names):
        held, voted = bool(answers.region[k] >= 0), bool(answers.n[k])
        margin, R, radius = (float(floor_text(float(x[k]))) for x in (answers.margin, answers.R, answers.radius))
        rows.append(
            {
                "image": name,
                "predict": int(answers.predict[k]),
                "region": int(answers.region[k]) if held else None,
                "sigma": float(answers.sigma[k]) if voted else None,
                "distance": margin if held else None,
                "votes": int(answers.count[k]),
                "n": int(answers.n[k]),
                **({"R": R, "radius": radius} if settings.certify or created is not None else {}),
                **({} if created is None else {"created": bool(created[k])}),
                "alpha": settings.alpha,
                "seed": opened.seed,
                "map": opened.map_hash,
            }
        )
    return rows


def _print(rows: list[dict[str, Any]], cut: int, around: float | str | None, settings: PredictSettings) -> None:
    from rich.table import Table

    from srs.commands._cli import console

    screen = console()
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("image", overflow="fold")
    certified = "radius" in rows[0]
    radii = ("R", "certified radius") if certified else ()
    for name in ("class", "region", "sigma", "distance to boundary", "votes", *radii):
        table.add_column(name, justify="right")
    for row in rows:
        cells = [
            "abstains" if row["predict"] < 0 else str(row["predict"]),
            "none" if row["region"] is None else str(row["region"]),
            "" if row["sigma"] is None else f"{row['sigma']:g}",
            "" if row["distance"] is None else f"{row['distance']:.6f}",
            f"{row['votes']} of {row['n']}" if row["n"] else "",
        ]
        if certified:
            cells += [f"{row['R']:.6f}" if row["n"] else "", f"{row['radius']:.6f}"]
        table.add_row(row["image"], *cells)
    screen.print(table)
    lost = sum(row["region"] is None for row in rows)
    lines = []
    if lost and settings.online is None:
        if around is not None:
            how = f"they vote with {'the sigma that a router names' if around == 'router' else named_outside(around)}"
        elif settings.outside == "abstain":
            how = "it abstains"
        else:
            how = f"sigma by {settings.outside}, and nothing is certified"
        lines.append(f"no region holds {lost} of {len(rows)} images: {how}")
    if cut:
        where = (
            "another sigma decides that does not agree" if around else "an overlapping region of another sigma decides"
        )
        lines.append(f"{cut} of {len(rows)} radii end where {where}")
    if settings.online is not None:
        new = sum(row["created"] for row in rows)
        lines.append(f"{new} new regions in {settings.online}; no region holds {lost} of {len(rows)} images")
    what = "each answer holds within its radius" if certified else "each answer is G(x) or abstains"
    repeat = "" if settings.online else f"; repeat with --seed {rows[0]['seed']}"
    lines.append(f"{what} with probability at least 1 - {settings.alpha:g}, per image{repeat}")
    for line in lines:
        screen.print(line, soft_wrap=True)
