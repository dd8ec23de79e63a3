"""`srs-predict`: classify new images with the region map that a run made, G(x) of Eq. 9."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from srs.commands._errors import one_line_errors, parse, printing
from srs.commands._own_models import find_in_current_folder
from srs.commands._warnings import one_line_warnings
from srs.limits import check_alpha
from srs.run.settings import own_code

if TYPE_CHECKING:
    import numpy as np

    from srs.predict.images import Query
    from srs.predict.predictor import Answers

_DESCRIPTION = """Classify images by G (Eq. 9): the region that holds an image says with which sigma to vote.

RUN is the folder of a finished srs-certify run, which knows its classifier; it is refused if its weights changed. A
region map alone (regions.npz) needs --checkpoint or --expert. Images are PNG or JPEG files, arrays .npy of one or many
images (8-bit, or floats in [0, 1]), or test:INDEX, an image of the run's own test set. Nothing is written and regions
stay as they are, unless --online registers the images."""


@dataclass(frozen=True)
class PredictSettings:
    """What `srs-predict` can be told."""

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Folder of a run, or a region map (.npz)."""
    images: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="IMAGE ...")]
    """Images of the size that the regions are about; nothing is scaled."""
    indices: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Also these images of the run's own test set: whole numbers from 0, one a line, or an array in a .npy file."""
    certify: bool = False
    """Also certify each answer with fresh samples: within l2 radius min(R, distance to the region's boundary), in units
    of pixels in [0, 1]; less where regions of one class overlap and another sigma decides nearer by."""
    outside: Literal["abstain", "smallest-sigma", "nearest-region", "best-sigma"] = "abstain"
    """Image that no region holds: no answer, or a vote with the smallest sigma, that of the nearest region, or that
    which certifies the largest radius (Eq. 7). Nothing is certified there."""
    online: Annotated[Path | None, tyro.conf.arg(metavar="STATE.db")] = None
    """Certify each image and register it (Algorithm 2): one that no region holds gets a region of its own. The file is
    begun with the run's regions, grows, and is shared by processes; stored regions never change."""
    n: int | None = None
    """Votes per image. Default: 1000; 10000 with --certify or --online."""
    n0: int = 1000
    """Samples that guess the class to certify, and choose sigma for --outside best-sigma."""
    alpha: float = 0.001
    """Failure probability per image."""
    seed: int | None = None
    """Repeats an earlier call on the same images; it was printed then. Default: drawn from the operating system, so
    that nobody can know the noise when choosing an image."""
    checkpoint: Path | None = None
    """Base classifier for a region map; for a run, where its weights are now."""
    expert: Annotated[tuple[str, ...], tyro.conf.UseAppendAction, tyro.conf.arg(metavar="SIGMA=FILE")] = ()
    """The same, one checkpoint for each noise level: --expert 0.25=a.pt --expert 0.5=b.pt."""
    model: str | None = None
    """Base classifier of your own, package.module:factory. A run that was certified with one needs it named again,
    because building it runs its module and a folder alone never runs code. A region map needs --num-classes as well."""
    arch: str | None = None
    """Architecture of a checkpoint that does not name it; for a run only where it is package.module:factory, as with
    --model."""
    normalizer: str | None = None
    """Normaliser of a checkpoint that does not name it: none, cifar10 or imagenet."""
    num_classes: int | None = None
    """For a region map: number of classes. Default: as many as the checkpoint has."""
    precision: Literal["float32", "tf32", "bfloat16"] = "float32"
    """For a region map: what the base classifier computed in when it was certified."""
    sampler: Literal["gaussian", "discrete"] = "gaussian"
    """For a region map: the sampler that it was certified with."""
    device: str = "auto"
    """Where the classifier runs: auto (CUDA where there is one), cpu, cuda, cuda:1, ..."""
    json: bool = False
    """Print one JSON object per image, in lines, in place of the table."""

    def check(self) -> None:
        """Raise `ValueError`, naming the flag and its value, where a setting cannot be honoured."""
        if not self.images and self.indices is None:
            raise ValueError("name at least one image after the run")
        if self.indices is not None and self.run.suffix == ".npz":
            raise ValueError(f"--indices {self.indices}: a map does not say whose test images it is about; name a run")
        for flag, count in (("--n", self.n), ("--n0", self.n0)):
            if count is not None and not 1 <= count <= 10**9:
                raise ValueError(f"{flag} {count}: must be from 1 to 1,000,000,000")
        if self.num_classes is not None and not 2 <= self.num_classes <= 10**6:
            raise ValueError(f"--num-classes {self.num_classes}: must be from 2 to 1,000,000")
        check_alpha(self.alpha)
        if self.seed is not None and not 0 <= self.seed < 2**64:
            raise ValueError(f"--seed {self.seed}: must be in [0, 2**64)")
        if self.online is not None:
            if self.run.suffix == ".npz":
                raise ValueError(f"--online {self.online}: needs the folder of a run, which knows what was certified")
            if self.outside != "abstain":
                raise ValueError(
                    f"--outside {self.outside}: has no effect with --online, which makes a region; drop it"
                )
            if self.seed is not None:
                raise ValueError("--seed: noise that was used before would decide about new regions; drop it")
        sources = [name for name in ("checkpoint", "expert", "model") if getattr(self, name)]
        if len(sources) > 1:
            raise ValueError(f"--{sources[0]} and --{sources[1]} both name a base classifier: give one of them")
        if self.model is not None and not own_code(self.model):
            raise ValueError(f"--model {self.model}: expected package.module:factory; for weights use --checkpoint")
        if self.model is not None and (self.arch or self.normalizer):
            raise ValueError("--arch and --normalizer describe a checkpoint; what --model returns is taken as it is")
        if self.run.suffix != ".npz":
            for name, default in (("arch", None), ("normalizer", None), ("num_classes", None),
                                  ("precision", "float32"), ("sampler", "gaussian")):  # fmt: skip
                if getattr(self, name) != default and not (name == "arch" and own_code(self.arch)):
                    raise ValueError(f"--{name.replace('_', '-')}: the run in {self.run} says it; leave it out")


@printing("srs-predict")
def main() -> None:
    """Run the command; exit code 2 and one line on stderr where something cannot be used."""
    settings = parse(PredictSettings, "srs-predict", _DESCRIPTION)
    kept = "nothing was written" if settings.online is None else "images registered so far stay registered"
    with one_line_errors("srs-predict", kept), one_line_warnings("srs-predict"):
        predict(settings)


def predict(settings: PredictSettings) -> None:
    """Load map and classifier, read the images, answer, print."""
    settings.check()

    find_in_current_folder(settings.model, settings.arch)

    from srs.predict.opening import open_map, open_run  # after the check: PyTorch takes seconds to import

    opened = (open_map if settings.run.suffix == ".npz" else open_run)(settings)
    query, predictor = opened.query, opened.predictor
    created = None
    if settings.online is not None:
        arrivals = opened.arrive(settings)
        answers, created = arrivals.answers, arrivals.created
    elif settings.certify:
        answers = predictor.certify(query.images, settings.n or 10_000, settings.n0)
    else:
        answers = predictor(query.images, settings.n or 1000, settings.n0)
    rows = _rows(query, answers, created, settings, opened.seed)
    if settings.json:
        for row in rows:
            sys.stdout.write(json.dumps(row) + "\n")
    else:
        _print(rows, settings)


def _rows(
    query: Query, answers: Answers, created: np.ndarray | None, settings: PredictSettings, seed: int
) -> list[dict[str, Any]]:
    """Return what is known of every image; radii rounded down, None where there is nothing to say."""
    from smoothing.tables import floor_text

    rows = []
    for k, name in enumerate(query.names):
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
                "seed": seed,
            }
        )
    return rows


def _print(rows: list[dict[str, Any]], settings: PredictSettings) -> None:
    from rich.table import Table

    from srs.commands._console import console

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
        how = (
            "it abstains" if settings.outside == "abstain" else f"sigma by {settings.outside}, and nothing is certified"
        )
        lines.append(f"no region holds {lost} of {len(rows)} images: {how}")
    cut = sum(row["radius"] < min(row["R"], row["distance"] or 0.0) for row in rows) if settings.certify else 0
    if cut:
        lines.append(f"{cut} of {len(rows)} radii end where an overlapping region of another sigma decides")
    if settings.online is not None:
        new = sum(row["created"] for row in rows)
        lines.append(f"{new} new regions in {settings.online}; no region holds {lost} of {len(rows)} images")
    what = "each answer holds within its radius" if certified else "each answer is G(x) or abstains"
    repeat = "" if settings.online else f"; repeat with --seed {rows[0]['seed']}"
    lines.append(f"{what} with probability at least 1 - {settings.alpha:g}, per image{repeat}")
    for line in lines:
        screen.print(line, soft_wrap=True)
